"""Needs a package that is not there."""

import a_package_that_nobody_has

from spex_proxy_standard.maskers import DeleteMasker as Masker

__all__ = ["Masker", "a_package_that_nobody_has"]
