"""The systems of the paper's two tables: a small file each, its docstring the recipe, and one protocol for all."""
