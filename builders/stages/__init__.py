"""The stages of `t4sa build`, a file each: what a stage reads, does and writes. `builders.pipeline` puts them in order.

Candidates are tweets up to `select`, then images. The tables of `fetch`, `inspection`, `dedup`, `balance` and `split`
have a row for each row of `select`'s `images`, in its order (ascending tweet id, then index).

`fates` reads them all, and tells the ledger.
"""
