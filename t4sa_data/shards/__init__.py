"""Shards: tar and Parquet writing and reading, the sample table that addresses both, sidecars for other readers."""

from t4sa_data.shards.parquet import ParquetShardWriter, image_spans, open_writer, write_table
from t4sa_data.shards.sidecars import layer_sidecars, tar_index
from t4sa_data.shards.table import TABLE_NAME, RangeReader, read_table
from t4sa_data.shards.tar import Forward, GrowingWalk, Member, TarShardWriter, samples, ustar_header, walk, walk_on

__all__ = [
    "TABLE_NAME",
    "Forward",
    "GrowingWalk",
    "Member",
    "ParquetShardWriter",
    "RangeReader",
    "TarShardWriter",
    "image_spans",
    "layer_sidecars",
    "open_writer",
    "read_table",
    "samples",
    "tar_index",
    "ustar_header",
    "walk",
    "walk_on",
    "write_table",
]
