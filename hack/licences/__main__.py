"""The licences of what the operator's image holds of Python: `python hack/licences` prints docs/licences.md.

They are what the installed packages say of themselves, in the expression (PEP 639), the field or the classifiers.
"""

from __future__ import annotations

from licencelist import page

print(page(), end="")
