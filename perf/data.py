"""DICOM instances made on the spot: MR, CT and multi-frame XA, all of them distinct.

Owns the files under ``data/`` of the work directory, kept there between runs, and the
templates of which the load generator makes instances in memory.  IODs: PS3.3 A.3 (CT),
A.4 (MR), A.14 (XA); transfer syntax Explicit VR Little Endian.
"""

import random
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    XRayAngiographicImageStorage,
)

# Part of the path, so that a change of what is made never meets files of an older make.
VERSION = "v1"
_SERIES_SIZE = 250


@dataclass(frozen=True, slots=True)
class Kind:
    """What an instance of this kind looks like."""

    name: str
    code: int
    sop_class_uid: str
    modality: str
    rows: int
    columns: int
    bits: int
    frames: int = 1

    @property
    def pixel_bytes(self) -> int:
        return self.rows * self.columns * self.frames * (self.bits // 8)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("mr", 1, MRImageStorage, "MR", 256, 256, 16),
        Kind("ct", 2, CTImageStorage, "CT", 512, 512, 16),
        Kind("xa", 3, XRayAngiographicImageStorage, "XA", 1024, 1024, 8, frames=48),
    )
}


@dataclass(frozen=True, slots=True)
class Template:
    """An encoded data set in which one UID and the first pixels can be overwritten.

    ``uid_offset`` is where the value of (0008,0018) starts, ``pixel_offset`` where that of
    (7FE0,0010) does.  ``pixel_bytes`` is its length; ``data`` holds it unless it was left out.
    """

    kind: Kind
    data: bytes
    uid_offset: int
    pixel_offset: int
    pixel_bytes: int


def instance_uid(kind: Kind, sender: int, number: int, level: int = 3) -> str:
    """A UID of fixed length under 2.25, so that it can be overwritten in place.

    ``level`` is 0 for the frame of reference, 1 for the study, 2 for the series, 3 for the
    instance.  PS3.5 B.2 wants no leading zeros, hence the 1.
    """
    return f"2.25.1{kind.code:02d}{level}{sender:06d}{number:012d}"


def make_dataset(kind: Kind, sender: int, number: int, *, pixels: bool = True) -> Dataset:
    """One instance: same arguments, same bytes; other arguments, other UID and other pixels."""
    ds = Dataset()
    _describe(ds, kind, sender, number)
    if pixels:
        noise = random.Random(f"{kind.name}/{sender}/{number}")
        ds.add_new(0x7FE00010, "OW", _pixels(kind, noise))
    return ds


def encode(ds: Dataset) -> bytes:
    """The data set alone, Explicit VR Little Endian, as it goes over the wire."""
    target = BytesIO()
    dcmwrite(target, ds, implicit_vr=False, little_endian=True)
    return target.getvalue()


def write_instance(path: Path, kind: Kind, sender: int, number: int) -> None:
    """A Part 10 file (PS3.10 §7.1); appears whole or not at all."""
    ds = make_dataset(kind, sender, number)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(kind.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID("2.25.1000")
    ds.file_meta = meta
    unfinished = path.with_suffix(".part")
    dcmwrite(unfinished, ds, enforce_file_format=True)
    unfinished.rename(path)


def make_files(root: Path, kind: Kind, senders: int, count: int) -> list[list[Path]]:
    """``count`` files for each sender; those that an earlier run made are taken as they are."""
    lists = []
    for sender in range(senders):
        folder = root / VERSION / kind.name / str(sender)
        folder.mkdir(parents=True, exist_ok=True)
        present = {entry.name for entry in folder.iterdir()}
        paths = [folder / f"{number:05d}.dcm" for number in range(count)]
        for number, path in enumerate(paths):
            if path.name not in present:
                write_instance(path, kind, sender, number)
        lists.append(paths)
    return lists


def warm(lists: list[list[Path]]) -> int:
    """Read all of it once, so that no contender pays for the first reading; bytes read."""
    total = 0
    buffer = bytearray(2**20)
    for paths in lists:
        for path in paths:
            with path.open("rb", buffering=0) as file:
                while n := file.readinto(buffer):
                    total += n
    return total


TEMPLATE_SENDER = 999_999
"""Whose study that of every template is."""


def template(kind: Kind) -> Template:
    """A data set with its pixels, to be sent many times under other UIDs."""
    ds = make_dataset(kind, TEMPLATE_SENDER, 0)
    data = encode(ds)
    return Template(
        kind, data, _uid_offset(data, ds), len(data) - kind.pixel_bytes, kind.pixel_bytes
    )


def big_template(pixel_bytes: int) -> Template:
    """The head of an XA run of ``pixel_bytes`` (under 4 GiB); the pixels are for the sender."""
    kind = KINDS["xa"]
    frame = kind.rows * kind.columns
    frames = max(1, pixel_bytes // frame)
    ds = make_dataset(kind, 999_998, 0, pixels=False)
    ds.NumberOfFrames = frames
    # PS3.5 table 7.1-1: OW has two reserved bytes and a 32-bit length.
    tail = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, frames * frame)
    data = encode(ds) + tail
    return Template(kind, data, _uid_offset(data, ds), len(data), frames * frame)


def _uid_offset(data: bytes, ds: Dataset) -> int:
    header = struct.pack("<HH2s", 0x0008, 0x0018, b"UI")
    return data.index(str(ds.SOPInstanceUID).encode(), data.index(header))


def _pixels(kind: Kind, noise: random.Random) -> bytes:
    if kind.bits == 8:
        return noise.randbytes(kind.pixel_bytes)
    # Twelve bits stored of sixteen, as these modalities have them.
    pixels = bytearray(kind.pixel_bytes)
    half = kind.pixel_bytes // 2
    pixels[0::2] = noise.randbytes(half)
    pixels[1::2] = noise.randbytes(half).translate(bytes(i & 0x0F for i in range(256)))
    return bytes(pixels)


def _describe(ds: Dataset, kind: Kind, sender: int, number: int) -> None:
    series = number // _SERIES_SIZE
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", {"MR": "M", "CT": "AXIAL"}.get(kind.modality, "")]
    ds.SOPClassUID = kind.sop_class_uid
    ds.SOPInstanceUID = instance_uid(kind, sender, number)
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = "20240102"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "101112"
    ds.AccessionNumber = f"A{sender:06d}"
    ds.Modality = kind.modality
    ds.Manufacturer = "Synthetic"
    ds.ReferringPhysicianName = "Referring^Physician"
    ds.StudyDescription = "Synthetic study"
    ds.SeriesDescription = "Synthetic series"
    ds.PatientName = f"Synthetic^Patient {sender}"
    ds.PatientID = f"SYN{sender:06d}"
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "O"
    ds.BodyPartExamined = "HEAD"
    ds.StudyInstanceUID = instance_uid(kind, sender, 0, level=1)
    ds.SeriesInstanceUID = instance_uid(kind, sender, series, level=2)
    ds.StudyID = "1"
    ds.SeriesNumber = str(series + 1)
    ds.InstanceNumber = str(number + 1)
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = kind.rows, kind.columns
    ds.BitsAllocated = kind.bits
    ds.BitsStored = min(kind.bits, 12)
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = 0
    if kind.modality == "XA":
        _describe_xa(ds, kind)
    else:
        _describe_slice(ds, kind, sender, number)


def _describe_slice(ds: Dataset, kind: Kind, sender: int, number: int) -> None:
    ds.FrameOfReferenceUID = instance_uid(kind, sender, 0, level=0)
    ds.PositionReferenceIndicator = ""
    ds.PatientPosition = "HFS"
    ds.PixelSpacing = [0.5, 0.5]
    ds.SliceThickness = "1"
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [0, 0, number]
    if kind.modality == "CT":
        ds.KVP = "120"
        ds.AcquisitionNumber = "1"
        ds.RescaleIntercept, ds.RescaleSlope = "-1024", "1"
        return
    ds.ScanningSequence, ds.SequenceVariant = "SE", "NONE"
    ds.ScanOptions = ""
    ds.MRAcquisitionType = "2D"
    ds.EchoTime, ds.RepetitionTime, ds.EchoTrainLength = "10", "500", "1"


def _describe_xa(ds: Dataset, kind: Kind) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "SINGLE PLANE"]
    ds.PixelIntensityRelationship = "LIN"
    ds.KVP, ds.RadiationSetting = "80", "GR"
    ds.ExposureTime, ds.XRayTubeCurrent = "10", "500"
    ds.PositionerMotion = "STATIC"
    ds.PositionerPrimaryAngle = ds.PositionerSecondaryAngle = "0"
    ds.NumberOfFrames = kind.frames
    ds.FrameIncrementPointer = 0x00181063
    ds.FrameTime = "66"
    ds.PatientOrientation = ["L", "F"]
