"""What is suggested for a name that is not known."""

import pytest

from graphc.ir.suggestions import nearest


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ([], "; there are none"),
        (["kernel"], "; there is kernel"),
        (["losses"], "; did you mean losses?"),
        (["kernel", "losses"], "; did you mean losses? There are kernel, losses"),
        (["bias", "kernel"], "; there are bias, kernel"),
        (["losses", *map(str, range(9))], "; did you mean losses?"),
    ],
)
def test_the_nearest_name_and_what_there_is(known, wanted):
    assert nearest("loses", known) == wanted
