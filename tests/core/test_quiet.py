import warnings

import pytest

from gencls.core.quiet import quiet_import


def test_one_warning_is_silent_and_others_are_heard():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet_import():
            warnings.warn("pkg_resources is deprecated as an API", UserWarning, stacklevel=1)
            with pytest.raises(UserWarning, match="something else"):
                warnings.warn("something else", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="pkg_resources"):
            warnings.warn("pkg_resources is deprecated as an API", UserWarning, stacklevel=1)
