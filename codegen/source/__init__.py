"""The writer that the source targets share: from a legal module to one readable Python file and its weights.

`writer.py` puts the file together, `scopes.py` finds its classes, `members.py` the places of weights, `body.py`
writes statements; `dialect.py` is what a target has to say.
"""
