"""Heads of files in the eyes of DCMTK and dicom3tools."""

import shutil
import subprocess
from pathlib import Path

import pydicom.data
import pytest

from router.dicom.part10 import read_file_meta, write_file_meta

pytestmark = pytest.mark.interop

FILES = ("CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm")


def rewritten(name: str, target: Path) -> Path:
    """A file of pydicom's with its head replaced by ours."""
    source = Path(pydicom.data.__file__).parent / "test_files" / name
    data = source.read_bytes()
    meta = read_file_meta(data)
    head = write_file_meta(
        meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid, source_ae="CT1"
    )
    target.write_bytes(head + data[meta.data_set_offset :])
    return source


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("dcmdump"), reason="needs dcmtk")
@pytest.mark.parametrize("name", FILES)
def test_dcmdump_reads_it(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.dcm"
    rewritten(name, copy)
    text = run("dcmdump", "-q", str(copy))
    assert "(0002,0016) AE [CT1]" in text
    assert "(0008,0018) UI" in text
    assert not any(line.startswith(("E:", "F:")) for line in text.splitlines())


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="needs dicom3tools")
@pytest.mark.parametrize("name", FILES)
def test_dciodvfy_has_no_more_to_say_than_before(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.dcm"
    source = rewritten(name, copy)
    before, after = run("dciodvfy", str(source)), run("dciodvfy", str(copy))
    assert after.strip()
    assert set(after.splitlines()) <= set(before.splitlines())
