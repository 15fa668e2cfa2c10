"""Files of Caffe and DIGITS, both ways, without Caffe.

weights = read_weights(Path("snapshot_iter_34560.caffemodel"))     # <layer>.weight -> tensor
layers, dims = read_network(Path("deploy.prototxt"))
model = import_archive(Path("vgg19_finetuned_all.tar.gz"))         # a `Model`: network, input, classes
export_archive(model, Path("mine.tar.gz"))                         # for DIGITS' upload
"""

from examples.caffe.comparing import compare_graph
from examples.caffe.digits import Archive, read_archive
from examples.caffe.exporting import export_archive
from examples.caffe.importing import import_archive, import_weights
from examples.caffe.weights import read_network, read_weights

__all__ = [
    "Archive",
    "compare_graph",
    "export_archive",
    "import_archive",
    "import_weights",
    "read_archive",
    "read_network",
    "read_weights",
]
