"""All targets, by name."""

from tests.fuzz import targets_dicom, targets_dimse, targets_rules, targets_session, targets_ul
from tests.fuzz.core import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (targets_ul, targets_session, targets_dimse, targets_dicom, targets_rules)
    for target in module.TARGETS
}
