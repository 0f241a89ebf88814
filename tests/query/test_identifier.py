"""Keys of a query, and what a match says."""

import io

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from router.query.identifier import (
    EXPLICIT,
    IMPLICIT,
    LEVELS,
    USUAL,
    KeyProblem,
    Query,
    decode,
    encode,
    parse_keys,
)

MISTAKES = [
    ("study", ["PatientIDD=1"], "'PatientIDD' is no attribute of the standard", "PatientID"),
    ("study", ["0010,002=1"], "'0010,002' is no attribute", "0010,0020=123"),
    ("study", ["zzzzzzzz=1"], "'zzzzzzzz' is no attribute", "PatientID=123"),
    ("study", ["=1"], "'' is no attribute", "PatientID=123"),
    ("study", ["0009,0010=1"], "'0009,0010' is no attribute", ""),
    ("study", ["PatientID=1", "0010,0020=2"], "PatientID is given twice", ""),
    ("study", ["PixelData"], "PixelData cannot be asked for: its values are", ""),
    ("study", ["ReferencedStudySequence"], "its values are SQ", ""),
    ("study", ["QueryRetrieveLevel=SERIES"], "QueryRetrieveLevel (0008,0052) cannot be", ""),
    ("study", ["SpecificCharacterSet"], "SpecificCharacterSet (0008,0005) cannot be", ""),
    ("study", ["TransferSyntaxUID"], "TransferSyntaxUID (0002,0010) cannot be", ""),
    ("study", ["StudyInstanceUID=1.2.x"], "StudyInstanceUID: '1.2.x' is no UID", ""),
    ("study", ["PatientName=a\x1bb"], "PatientName: a value has no control characters", ""),
    ("study", ["PatientName=" + "a" * 1025], "PatientName: a value has 1024 characters", ""),
    ("image", ["Rows=-1", "StudyInstanceUID=1", "SeriesInstanceUID=1"], "no number of US", ""),
    (
        "series",
        ["Modality=CT"],
        "a query at series level needs one StudyInstanceUID",
        "study level",
    ),
    ("series", ["StudyInstanceUID="], "needs one StudyInstanceUID", "study level"),
    ("series", ["StudyInstanceUID=1.2\\1.3"], "needs one StudyInstanceUID", "study level"),
    ("image", ["StudyInstanceUID=1.2"], "needs one SeriesInstanceUID", "series level"),
]


@pytest.mark.parametrize(("level", "texts", "message", "fix"), MISTAKES)
def test_a_mistake_is_named_and_mended(
    level: str, texts: list[str], message: str, fix: str
) -> None:
    with pytest.raises(KeyProblem) as caught:
        parse_keys(level, texts)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert fix in caught.value.fix


def test_the_usual_keys_are_asked_for_when_nothing_is() -> None:
    query = parse_keys("study", ["PatientID=12*", "StudyDate=20260101-"])
    assert query.keys["PatientID"] == "12*"
    assert set(query.keys) == {*USUAL["study"], "StudyInstanceUID"}


def test_only_what_is_asked_for_is_when_something_is() -> None:
    query = parse_keys("study", ["0010,0020=12", "(0008,0050)", "StudyInstanceUID"])
    assert query.keys == {"PatientID": "12", "AccessionNumber": "", "StudyInstanceUID": ""}


@pytest.mark.parametrize("level", LEVELS)
def test_the_unique_key_is_always_asked_for(level: str) -> None:
    uids = ["StudyInstanceUID=1.2", "SeriesInstanceUID=1.3"][: LEVELS.index(level)]  # type: ignore[arg-type]
    query = parse_keys(level, [*uids, "InstanceNumber"])  # type: ignore[arg-type]
    unique = {"study": "Study", "series": "Series", "image": "SOP"}[level] + "InstanceUID"
    assert query.keys[unique] == ""


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_pydicom_reads_what_is_asked(syntax: str) -> None:
    texts = ["PatientName=MÜLLER^*", "StudyInstanceUID=1.2\\1.34", "StudyDate", "Rows=512"]
    texts += ["ModalitiesInStudy=CT\\MR", "RetrieveURL=https://x"]
    dataset = read(encode(parse_keys("study", texts), syntax), syntax)
    assert dataset.QueryRetrieveLevel == "STUDY"
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert dataset.PatientName == "MÜLLER^*"
    assert dataset.StudyInstanceUID == ["1.2", "1.34"]
    assert dataset.ModalitiesInStudy == ["CT", "MR"]
    assert dataset.Rows == 512
    assert dataset.RetrieveURL == "https://x"
    assert dataset["StudyDate"].is_empty
    tags = [element.tag for element in dataset]
    assert tags == sorted(tags)


def test_ascii_keys_name_no_character_set() -> None:
    dataset = read(encode(Query("study", {"PatientName": "DOE"}), IMPLICIT), IMPLICIT)
    assert "SpecificCharacterSet" not in dataset


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192", "ISO 2022 IR 87"])
def test_a_match_says_what_the_archive_wrote(syntax: str, charset: str) -> None:
    name = "山田^太郎" if charset == "ISO 2022 IR 87" else "MÜLLER^JÖRG"
    dataset = Dataset()
    dataset.SpecificCharacterSet = ["", charset] if charset.startswith("ISO 2022") else charset
    dataset.PatientName = name
    dataset.PatientID = ""
    dataset.ModalitiesInStudy = ["CT", "SR"]
    dataset.NumberOfStudyRelatedInstances = 7
    dataset.StudyDescription = "not asked for"
    keys = dict.fromkeys(
        (
            "PatientName",
            "PatientID",
            "ModalitiesInStudy",
            "StudyDate",
            "NumberOfStudyRelatedInstances",
        ),
        "",
    )
    assert decode(Query("study", keys), write(dataset, syntax), syntax) == {
        "PatientName": (name,),
        "PatientID": (),
        "ModalitiesInStudy": ("CT", "SR"),
        "NumberOfStudyRelatedInstances": ("7",),
    }


@pytest.mark.parametrize("junk", [b"\x08\x00\x05", b"\x10\x00\x20\x00\xff\xff\xff\x7f"])
def test_a_match_that_cannot_be_read_is_an_error(junk: bytes) -> None:
    query = Query("study", {"PatientID": "", "StudyInstanceUID": ""})
    with pytest.raises(ValueError, match="a match cannot be read"):
        decode(query, junk, IMPLICIT)


def read(data: bytes, syntax: str) -> Dataset:
    from pydicom.filereader import read_dataset

    return read_dataset(io.BytesIO(data), syntax == IMPLICIT, True)


def write(dataset: Dataset, syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, syntax == IMPLICIT
    write_dataset(buffer, dataset)
    return buffer.getvalue()
