"""What a remote is never sent, and the presets."""

import pytest
from pydantic import ValidationError

from router.net.offer import Offer, check_sop_class
from router.net.presets import PRESETS, with_preset
from router.net.settings import Remote
from router.net.target import Target

CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"
GSPS, COLOUR_PS = "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.11.2"
SIEMENS_CSA = "1.3.12.2.1107.5.9.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
JPEG_LS = "1.2.840.10008.1.2.4.80"


@pytest.mark.parametrize(
    ("text", "fault", "fix"),
    [
        ("CTImageStorag", "no SOP class is called 'CTImageStorag'", "mean 'CTImageStorage'?"),
        ("xyzzy", "no SOP class is called 'xyzzy'", "write a UID, or a keyword such as"),
        ("Xyzzy*", "no SOP class is called like 'Xyzzy*'", "write a UID"),
        ("", "no SOP class is called ''", "write a UID"),
        ("CT Image Storage", "no SOP class is called", "mean 'CTImageStorage'?"),
    ],
)
def test_a_class_that_there_is_not_is_told_with_the_nearest(
    text: str, fault: str, fix: str
) -> None:
    with pytest.raises(ValueError, match="no SOP class") as caught:
        check_sop_class(text)
    assert fault in caught.value.args[0]
    assert fix in caught.value.args[1]


@pytest.mark.parametrize(
    ("written", "covered", "free"),
    [
        ("CTImageStorage", CT, ENHANCED_CT),
        ("ctimagestorage", CT, ENHANCED_CT),
        ("*PresentationState*", COLOUR_PS, CT),
        (CT, CT, ENHANCED_CT),
        (CT + "*", ENHANCED_CT, GSPS),
        ("1.3.12.2.1107.*", SIEMENS_CSA, CT),
        ("SiemensPrivateCSANonImageStorage", SIEMENS_CSA, CT),
        (" 1.2.3 ", "1.2.3", "1.2.3.4"),
    ],
)
def test_never_sent(written: str, covered: str, free: str) -> None:
    offer = Remote(ae_title="A", never_send=(written,)).offer
    why = offer.refuses((covered, EXPLICIT))
    assert why.startswith("not sent by configuration: never_send")
    assert covered in why
    assert offer.refuses((free, EXPLICIT)) == ""


def test_only_these_transfer_syntaxes() -> None:
    settings = {"ae_title": "A", "transfer_syntaxes": ["implicit-vr-le", "jpeg-ls-lossless"]}
    offer = Remote.model_validate(settings).offer
    assert offer.refuses((CT, IMPLICIT)) == ""
    assert offer.refuses((CT, JPEG_LS)) == ""
    assert offer.refuses((CT, EXPLICIT)) == (
        "stored as Explicit VR Little Endian (1.2.840.10008.1.2.1), and the remote's "
        "transfer_syntaxes has only implicit-vr-le, jpeg-ls-lossless; transcoding is not available"
    )


def test_nothing_is_refused_unless_it_is_said() -> None:
    offer = Remote(ae_title="A").offer
    assert offer == Offer()
    assert offer.refuses((CT, EXPLICIT)) == ""
    assert offer.refuses(("1.2.3", "9.8.7")) == ""


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_sound_changes_something_and_says_why(name: str) -> None:
    preset = PRESETS[name]
    plain, remote = Remote(ae_title="A"), Remote.model_validate({"ae_title": "A", "preset": name})
    changed = {key for key in Remote.model_fields if getattr(plain, key) != getattr(remote, key)}
    assert changed == {*preset.values, "preset"}, "every value is written, and is not the default"
    assert preset.reason.endswith(".")
    assert preset.source


def test_what_is_written_wins_over_the_preset() -> None:
    written = {"ae_title": "A", "preset": "dcmtk", "associations": 7}
    remote = Remote.model_validate(written)
    assert (remote.associations, remote.asynchronous_operations) == (7, 1)
    default = {"ae_title": "A", "preset": "dcmtk", "asynchronous_operations": 8}
    assert Remote.model_validate(default).asynchronous_operations == 8, "the default, if written"


@pytest.mark.parametrize("settings", [None, "pacs", [1], {"preset": ["dcmtk"]}, {"preset": "x"}])
def test_what_is_no_remote_is_left_to_validation(settings: object) -> None:
    assert with_preset(settings) is settings
    with pytest.raises(ValidationError):
        Remote.model_validate(settings)


def test_a_target_has_what_changes_the_way_of_calling() -> None:
    plain = Remote(ae_title="A", host="h")
    target = Target.of("pacs", plain, "ME")
    for change in ({"close_delay": 0.5}, {"propose_role": "scu"}, {"calling_ae": "X"}):
        other = Target.of("pacs", plain.model_copy(update=change), "ME")
        assert other != target, "a reload that changes it must open associations anew"
