"""Rows of any source, checked one by one, to questions with a gold answer; none is in both splits.

`settings` says what may be configured, `sources` finds rows, `files` reads them, `readers` knows the fields
of each dataset, `checking` sifts, `loading` does it all in order and `report` says what became of the rows.
"""
