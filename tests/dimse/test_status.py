"""The status tables against pynetdicom's and the standard's classes."""

import pytest
from pynetdicom import status as oracle

from router.dimse.status import (
    DELIVERED,
    TABLES,
    DimseError,
    Service,
    StatusClass,
    describe_status,
    status_class,
)

_THEIRS = {
    Service.GENERAL: oracle.GENERAL_STATUS,
    Service.STORAGE: oracle.STORAGE_SERVICE_CLASS_STATUS,
    Service.FIND: oracle.QR_FIND_SERVICE_CLASS_STATUS,
    Service.GET: oracle.QR_GET_SERVICE_CLASS_STATUS,
    Service.MOVE: oracle.QR_MOVE_SERVICE_CLASS_STATUS,
    Service.WORKLIST: oracle.MODALITY_WORKLIST_SERVICE_CLASS_STATUS,
    Service.RELEVANT_PATIENT: oracle.RELEVANT_PATIENT_SERVICE_CLASS_STATUS,
    Service.PROCEDURE_STEP: oracle.PROCEDURE_STEP_STATUS,
    Service.STORAGE_COMMITMENT: oracle.STORAGE_COMMITMENT_SERVICE_CLASS_STATUS,
    Service.UNIFIED_PROCEDURE_STEP: oracle.UNIFIED_PROCEDURE_STEP_SERVICE_CLASS_STATUS,
    Service.PRINT: oracle.PRINT_JOB_MANAGEMENT_SERVICE_CLASS_STATUS,
    Service.MEDIA_CREATION: oracle.MEDIA_CREATION_MANAGEMENT_SERVICE_CLASS_STATUS,
    Service.EVENT_LOGGING: oracle.APPLICATION_EVENT_LOGGING_SERVICE_CLASS_STATUS,
}


@pytest.mark.parametrize("service", Service)
def test_every_status_of_pynetdicom_has_its_class_and_a_meaning(service: Service) -> None:
    for status, (category, _) in _THEIRS[service].items():
        assert status_class(status).value == category.lower(), hex(status)
        if status:
            assert ": " in describe_status(status, service), hex(status)


@pytest.mark.parametrize("service", Service)
def test_no_table_names_what_pynetdicom_does_not_know(service: Service) -> None:
    known = _THEIRS[service].keys() | {0xFF00, 0xFF01, 0x0131}
    for row in TABLES[service]:
        assert row.first in known
        assert row.last in known
        assert row.first <= row.last


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0x0000, StatusClass.SUCCESS),
        (0x0001, StatusClass.WARNING),
        (0x0107, StatusClass.WARNING),
        (0x0116, StatusClass.WARNING),
        (0xB000, StatusClass.WARNING),
        (0xBFFF, StatusClass.WARNING),
        (0xFE00, StatusClass.CANCEL),
        (0xFF00, StatusClass.PENDING),
        (0xFF01, StatusClass.PENDING),
        (0x0002, StatusClass.FAILURE),
        (0x0124, StatusClass.FAILURE),
        (0xA7FF, StatusClass.FAILURE),
        (0xAFFF, StatusClass.FAILURE),
        (0xC000, StatusClass.FAILURE),
        (0xFF02, StatusClass.FAILURE),
        (0xFFFF, StatusClass.FAILURE),
    ],
)
def test_classes_at_their_edges(status: int, expected: StatusClass) -> None:
    assert status_class(status) is expected


@pytest.mark.parametrize(
    ("status", "service", "text"),
    [
        (0x0000, Service.STORAGE, "0000H success"),
        (0xA7FE, Service.STORAGE, "A7FEH failure: refused: out of resources"),
        (0xB000, Service.STORAGE, "B000H warning: coercion of data elements"),
        (
            0xB000,
            Service.MOVE,
            "B000H warning: sub-operations complete, one or more failures or warnings",
        ),
        (0xC123, Service.STORAGE, "C123H failure: cannot understand"),
        (
            0xC312,
            Service.UNIFIED_PROCEDURE_STEP,
            "C312H failure: the performer cannot be contacted",
        ),
        (0xC123, Service.UNIFIED_PROCEDURE_STEP, "C123H failure: unable to process"),
        (0x0122, Service.FIND, "0122H failure: refused: SOP class not supported"),
        (
            0x0122,
            Service.STORAGE_COMMITMENT,
            "0122H failure: referenced SOP class not supported",
        ),
        (0xA999, Service.GENERAL, "A999H failure"),
    ],
)
def test_a_service_gives_a_status_its_meaning(status: int, service: Service, text: str) -> None:
    assert describe_status(status, service) == text


def test_delivered_is_success_and_the_warnings_of_storage() -> None:
    assert set(DELIVERED) == {0x0000, 0xB000, 0xB006, 0xB007}


def test_an_error_carries_its_status_and_comment() -> None:
    error = DimseError(0xA700, "disk is full")
    assert (error.status, error.comment, str(error)) == (
        0xA700,
        "disk is full",
        "A700H disk is full",
    )
    assert str(DimseError(0x0110)) == "0110H"
