"""A data set written again by pydicom, in each encoding.

Owns what has to be done to a pydicom data set before it can be written otherwise than it was read.
"""

import warnings
from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from tests.dicom.build import BIG, DEFLATED, EXPLICIT, IMPLICIT


@dataclass(frozen=True)
class Encoding:
    """``undefined`` is the form of sequences and items."""

    syntax: str
    undefined: bool


ENCODINGS = {
    f"{name}, {'undefined' if undefined else 'defined'} lengths": Encoding(syntax, undefined)
    for name, syntax in (
        ("implicit", IMPLICIT),
        ("explicit", EXPLICIT),
        ("big endian", BIG),
        ("deflated", DEFLATED),
    )
    for undefined in (False, True)
}


def written(data: Dataset, encoding: Encoding) -> tuple[bytes, Dataset]:
    """The bytes of the data set in an encoding, and what pydicom reads from them."""
    for element in data.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = encoding.undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = encoding.undefined
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID("1.2"), UID("1.2.3")
    meta.TransferSyntaxUID = UID(encoding.syntax)
    data.file_meta = meta
    file = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcmwrite(file, data, enforce_file_format=True, overwrite=True)
        whole = file.getvalue()
        again = dcmread(BytesIO(whole))
    head = 128 + 4 + 12 + again.file_meta.FileMetaInformationGroupLength
    return whole[head:], again
