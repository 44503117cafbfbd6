"""Signatures that minisign accepts, and those of minisign."""

import base64
import hashlib
import shutil
import subprocess
import sys

import pytest

from striate.core.errors import RunError, SettingError
from striate.exporters.bundle.errors import BundleError
from striate.exporters.bundle.minisign import (
    SUFFIX,
    read_secret_key,
    scrypt_parameters,
    sign_bundle,
    verify_signature,
)
from striate.exporters.bundle.write import write_bundle
from support.optional_packages import imported
from support.small_bundles import small_contents

# Keys that `minisign -G -W` has made for these tests.
PUBLIC = "RWQMmxt1IiPBW2B4sqZ6ISvYh/M1vLXtjxRlVt93LniWbnFMFcD6VHvk"
TEST_KEY = (
    "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADJsbdSIj"
    "wVtmTvg79lO4o97R1rypET6/kzYB85YJRh+XV8mvbVhfsGB4sqZ6ISvYh/M1vLXtjxRlVt93LniWbnFMFcD6"
    "VHvkAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)
OTHER = "RWQ0zWkynqX0ax1iC0WxvWB3YEC9R+i1wipgJsKK7neLs2yjEhYAKc7A"


@pytest.fixture
def bundle(tmp_path):
    imported("cryptography")
    path = tmp_path / "cat.striate"
    write_bundle(small_contents(), path)
    (tmp_path / "key.pub").write_text(f"untrusted comment: public\n{PUBLIC}\n")
    (tmp_path / "key.sec").write_text(f"untrusted comment: secret\n{TEST_KEY}\n")
    return path


@pytest.fixture
def minisign():
    if shutil.which("minisign") is None:
        pytest.skip("the program minisign is not installed")

    def call(*words):
        command = ["minisign", *map(str, words)]
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        return done.returncode, done.stdout + done.stderr

    return call


def test_minisign_accepts_our_signature(bundle, minisign):
    sign_bundle(bundle, "key.sec")
    code, text = minisign("-V", "-H", "-m", bundle, "-p", "key.pub")
    assert (code, "comment signature verified" in text) == (0, True)
    assert "file:cat.striate" in text
    bundle.write_bytes(bundle.read_bytes() + b"x")
    assert minisign("-V", "-m", bundle, "-p", "key.pub")[0] == 1


def test_we_accept_the_signature_of_minisign(bundle, minisign):
    code, _ = minisign("-S", "-s", "key.sec", "-m", bundle, "-t", "épreuve 1")
    assert code == 0
    assert verify_signature(bundle, PUBLIC) == "épreuve 1"
    assert verify_signature(bundle, "key.pub") == "épreuve 1"


def test_signatures_of_the_old_kind_are_refused(bundle, minisign):
    minisign("-S", "-l", "-s", "key.sec", "-m", bundle)
    with pytest.raises(BundleError, match="old kind"):
        verify_signature(bundle, PUBLIC)


def test_the_same_bundle_has_the_same_signature(bundle):
    first = sign_bundle(bundle, "key.sec").read_bytes()
    with pytest.raises(RunError, match="already exists"):
        sign_bundle(bundle, "key.sec")
    assert sign_bundle(bundle, "key.sec", overwrite=True).read_bytes() == first
    assert verify_signature(bundle, PUBLIC) == "file:cat.striate\thashed"


def test_a_damaged_bundle_is_not_signed(bundle):
    bundle.write_bytes(bundle.read_bytes()[:-1])
    with pytest.raises(BundleError, match="cut short"):
        sign_bundle(bundle, "key.sec")
    assert not bundle.with_name(bundle.name + SUFFIX).exists()


def test_another_key_is_named(bundle):
    sign_bundle(bundle, "key.sec")
    with pytest.raises(BundleError, match="key 5BC12322751B9B0C, not with 6BF4A5"):
        verify_signature(bundle, OTHER)


def test_every_changed_byte_is_noticed(bundle):
    target = sign_bundle(bundle, "key.sec")
    sound = target.read_bytes()
    begin = sound.index(b"\n") + 1  # before it is the untrusted comment
    for position in range(begin, len(sound) - 1):
        damaged = bytearray(sound)
        damaged[position] ^= 1
        target.write_bytes(damaged)
        with pytest.raises(BundleError):
            verify_signature(bundle, PUBLIC)
    target.write_bytes(sound)
    payload = bytearray(bundle.read_bytes())
    payload[999] ^= 1
    bundle.write_bytes(payload)
    with pytest.raises(BundleError, match="not what the author signed"):
        verify_signature(bundle, PUBLIC)


def test_a_missing_or_odd_signature(bundle):
    with pytest.raises(BundleError, match="signature is missing") as caught:
        verify_signature(bundle, PUBLIC)
    assert caught.value.where.endswith(SUFFIX)
    for text in (b"", b"\n\n\n\n", b"\xff" * 9000):
        bundle.with_name(bundle.name + SUFFIX).write_bytes(text)
        with pytest.raises(BundleError, match="cannot be read"):
            verify_signature(bundle, PUBLIC)


@pytest.mark.parametrize("key", ["", "RWQ", "missing.pub", "cat.striate", "A" * 56])
def test_what_is_no_key(bundle, key):
    with pytest.raises(SettingError, match="no public key"):
        verify_signature(bundle, key)
    with pytest.raises(SettingError, match="secret key"):
        sign_bundle(bundle, key)


def encrypted_key(password: str, operations=32768, memory=1 << 24) -> str:
    """The secret key, encrypted as minisign does it, but faster."""
    plain = base64.b64decode(TEST_KEY)
    key = plain[54:126]
    digest = hashlib.blake2b(b"Ed" + key, digest_size=32).digest()
    n, r, p = scrypt_parameters(operations, memory)
    stream = hashlib.scrypt(password.encode(), salt=b"s" * 32, n=n, r=r, p=p, dklen=104)
    head = b"EdScB2" + b"s" * 32
    head += operations.to_bytes(8, "little") + memory.to_bytes(8, "little")
    body = bytes(a ^ b for a, b in zip(key + digest, stream, strict=True))
    return base64.b64encode(head + body).decode()


def test_a_key_with_a_password(bundle, tmp_path):
    path = tmp_path / "locked.sec"
    path.write_text(f"untrusted comment: secret\n{encrypted_key('früh')}\n")
    assert (
        read_secret_key(path, "früh").seed == read_secret_key(tmp_path / "key.sec").seed
    )
    with pytest.raises(SettingError, match="has a password"):
        read_secret_key(path)
    with pytest.raises(SettingError, match="wrong"):
        read_secret_key(path, "spät")
    sign_bundle(bundle, path, "früh")
    verify_signature(bundle, PUBLIC)


def test_a_key_that_asks_for_much_memory(tmp_path):
    payload = bytearray(base64.b64decode(TEST_KEY))
    payload[2:4] = b"Sc"
    payload[38:54] = b"\xff" * 16
    path = tmp_path / "evil.sec"
    path.write_text(f"untrusted comment: x\n{base64.b64encode(payload).decode()}\n")
    with pytest.raises(SettingError, match="bytes of memory"):
        read_secret_key(path, "x")


def test_a_secret_key_prints_nothing_secret(bundle, tmp_path):
    secret = read_secret_key(tmp_path / "key.sec")
    assert secret.seed.hex() not in repr(secret)
    assert str(secret.seed) not in repr(secret)


def test_the_error_without_the_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for name in [name for name in sys.modules if name.startswith("cryptography.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingError, match="cryptography") as caught:
        verify_signature(tmp_path / "cat.striate", PUBLIC)
    assert caught.value.fix == "pip install 'striate[sign]'"
