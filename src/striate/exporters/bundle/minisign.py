"""Signatures of bundles in the format of minisign (Ed25519), beside the bundle.

Format: https://jedisct1.github.io/minisign, "Signature format" and "Secret key format".
The signed message is the BLAKE2b hash of the file (algorithm `ED`).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.core.errors import SettingError
from striate.core.files import refuse_existing, write_text
from striate.exporters.bundle.errors import BundleError
from striate.exporters.bundle.read import open_bundle

SUFFIX = ".minisig"
MAX_TEXT = 8192  # bytes of a key or signature file
# Bytes and passes for the password of a key; minisign uses 1 GiB and 1.
MAX_MEMORY = (1 << 30) + (1 << 20)
MAX_PASSES = 64
_KEY, _SIGNATURE = b"Ed", b"ED"
_SCRYPT, _UNENCRYPTED = b"Sc", b"\0\0"
_KEY_LENGTH = 56  # letters of a public key
_UNTRUSTED, _TRUSTED = "untrusted comment: ", "trusted comment: "


def import_ed25519() -> Any:
    """Import the Ed25519 part of the package `cryptography`.

    Raises:
        SettingError: It is not installed; the message names the extra.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        what = "signatures need the package cryptography, which is not installed"
        fix = "pip install 'striate[sign]'"
        raise SettingError(what, where="signature", fix=fix) from error
    return ed25519


@dataclass(frozen=True)
class PublicKey:
    """Public key of minisign."""

    key_id: bytes
    key: bytes

    @property
    def name(self) -> str:
        """Return the key ID as minisign prints it."""
        return self.key_id[::-1].hex().upper()

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Return whether a signature is right."""
        from cryptography.exceptions import InvalidSignature

        try:
            key = import_ed25519().Ed25519PublicKey.from_public_bytes(self.key)
            key.verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, repr=False)
class SecretKey:
    """Secret key of minisign; its text form shows nothing of it."""

    key_id: bytes
    seed: bytes
    public: bytes

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message."""
        key = import_ed25519().Ed25519PrivateKey.from_private_bytes(self.seed)
        signature: bytes = key.sign(message)
        return signature


def signature_path(path: Path) -> Path:
    """Return the path of the signature of a file.

    Example:
        >>> signature_path(Path("cat.striate")).name
        'cat.striate.minisig'
    """
    return path.with_name(path.name + SUFFIX)


def sign_bundle(
    path: str | Path, key: str | Path, password: str = "", overwrite: bool = False
) -> Path:
    """Sign a bundle; `minisign -V -m NAME.striate -p KEY.pub` verifies it.

    The same bundle and key give the same signature.

    Args:
        path: The bundle.
        key: File with a secret key, made by `minisign -G`.
        password: Password of the key; empty for a key without (`minisign -G -W`).
        overwrite: Replace an existing signature.

    Returns:
        The signature file, `NAME.striate.minisig`.

    Raises:
        RunError: The signature exists.
        BundleError: The bundle is damaged.
        SettingError: The key cannot be used, or `cryptography` is not installed.
    """
    path = Path(path)
    target = signature_path(path)
    refuse_existing(target, overwrite)
    import_ed25519()
    open_bundle(path)  # a damaged bundle gets no signature
    secret = read_secret_key(Path(key), password)
    signature = secret.sign(_hash(path))
    comment = f"file:{path.name}\thashed"
    proof = secret.sign(signature + comment.encode())
    lines = [
        f"{_UNTRUSTED}signature of a striate bundle",
        _encoded(_SIGNATURE + secret.key_id + signature),
        f"{_TRUSTED}{comment}",
        _encoded(proof),
    ]
    write_text(target, "".join(f"{line}\n" for line in lines))
    return target


def verify_signature(path: str | Path, public_key: str | Path) -> str:
    """Verify the signature beside a bundle; return its trusted comment.

    Args:
        path: The bundle; its signature is `NAME.striate.minisig`.
        public_key: A public key of minisign (`RWQ…`), or a file with one.

    Raises:
        BundleError: The signature is missing, is of another key, or is wrong.
        SettingError: The key is not valid, or `cryptography` is not installed.
    """
    path = Path(path)
    target = signature_path(path)
    import_ed25519()
    public = read_public_key(public_key)
    algorithm, key_id, signature, comment, proof = _parsed(target)
    if algorithm != _SIGNATURE:
        what = "the signature is of an old kind, without hash"
        raise BundleError(what, where=target, fix="sign it again with a new minisign")
    if key_id != public.key_id:
        name = PublicKey(key_id, b"").name
        what = f"signed with the key {name}, not with {public.name}"
        raise BundleError(what, where=target, fix="ask the author for the right key")
    if not public.verify(signature, _hash(path)):
        what = "the signature is wrong: the bundle is not what the author signed"
        raise BundleError(what, where=path, fix="do not use it; get it again")
    if not public.verify(proof, signature + comment):
        what = "the comment of the signature has been changed"
        raise BundleError(what, where=target, fix="get the signature again")
    return comment.decode("utf-8", "backslashreplace")


def _hash(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).digest()
    except OSError as error:
        what = f"the bundle cannot be read: {error.strerror}"
        raise BundleError(what, where=path, fix="check its name") from error


def _encoded(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


def _decoded(line: bytes, length: int) -> bytes:
    payload = base64.b64decode(line, validate=True)
    if len(payload) != length:
        raise ValueError(f"{len(payload)} bytes instead of {length}")
    return payload


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(2, "there is no such file")
    with path.open("rb") as file:
        return file.read(MAX_TEXT)


def _parsed(path: Path) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """Return algorithm, key ID, signature, comment and its signature."""
    try:
        _, first, second, last, *_ = _read(path).split(b"\n")
        prefix = _TRUSTED.encode()
        if not second.startswith(prefix):
            raise ValueError("no trusted comment")
        payload = _decoded(first.rstrip(b"\r"), 74)
        proof = _decoded(last.rstrip(b"\r"), 64)
    except FileNotFoundError as error:
        fix = f"get {path.name} from the author, and put it beside the bundle"
        raise BundleError("the signature is missing", where=path, fix=fix) from error
    except (OSError, ValueError) as error:
        what = f"the signature cannot be read: {error}"
        raise BundleError(what, where=path, fix="get it again") from error
    comment = second.removeprefix(prefix).rstrip(b"\r")
    return payload[:2], payload[2:10], payload[10:], comment, proof


def read_public_key(key: str | Path) -> PublicKey:
    """Return a public key from its text, or from a file of minisign.

    Raises:
        SettingError: The key is not valid.

    Example:
        >>> key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
        >>> read_public_key(key).name
        'E7620F1842B4E81F'
    """
    try:
        is_text = len(str(key)) == _KEY_LENGTH and not Path(key).exists()
        line = str(key).encode() if is_text else _read(Path(key)).splitlines()[1]
        payload = _decoded(line, 42)
        if payload[:2] != _KEY:
            raise ValueError("another algorithm")
    except (IndexError, OSError, TypeError, ValueError) as error:
        what = f"no public key of minisign: {error}"
        raise SettingError(what, where=key, fix="give KEY.pub, or RWQ…") from error
    return PublicKey(payload[2:10], payload[10:])


def read_secret_key(path: Path, password: str = "") -> SecretKey:
    """Return a secret key from a file that `minisign -G` has written.

    Raises:
        SettingError: The key is not valid, or the password is missing or wrong.
    """
    try:
        payload = _decoded(_read(path).splitlines()[1], 158)
    except (IndexError, OSError, ValueError) as error:
        what = f"no secret key of minisign: {error}"
        raise SettingError(what, where=path, fix="make one: minisign -G") from error
    algorithm, kind, checksum = payload[:2], payload[2:4], payload[4:6]
    if algorithm != _KEY or checksum != b"B2" or kind not in (_SCRYPT, _UNENCRYPTED):
        fix = "make a new key: minisign -G"
        raise SettingError("an unknown kind of secret key", where=path, fix=fix)
    secret = payload[54:]
    if kind == _SCRYPT:
        secret = _decrypted(path, payload, password)
    key_id, seed, public = secret[:8], secret[8:40], secret[40:72]
    return SecretKey(key_id, seed, public)


def _decrypted(path: Path, payload: bytes, password: str) -> bytes:
    """Return the key of an encrypted file; its password is checked by a checksum."""
    salt, limits = payload[6:38], payload[38:54]
    operations = int.from_bytes(limits[:8], "little")
    memory = int.from_bytes(limits[8:], "little")
    if not password:
        fix = "give the password, or make a key without: minisign -G -W"
        raise SettingError("the secret key has a password", where=path, fix=fix)
    n, r, p = scrypt_parameters(operations, memory)
    needed = 128 * r * (n + p + 2)
    if needed > MAX_MEMORY or p > MAX_PASSES:
        what = f"the password of the key needs {needed:,} bytes of memory"
        raise SettingError(what, where=path, fix="make a new key: minisign -G")
    stream = hashlib.scrypt(
        password.encode(), salt=salt, n=n, r=r, p=p, maxmem=MAX_MEMORY, dklen=104
    )
    secret = bytes(a ^ b for a, b in zip(payload[54:], stream, strict=True))
    digest = hashlib.blake2b(_KEY + secret[:72], digest_size=32).digest()
    if digest != secret[72:]:
        raise SettingError("the password of the key is wrong", where=path)
    return secret


def scrypt_parameters(operations: int, memory: int) -> tuple[int, int, int]:
    """Return n, r and p of scrypt for the limits in a key, as libsodium does.

    Example:
        >>> scrypt_parameters(1 << 25, 1 << 30)
        (1048576, 8, 1)
    """
    operations, r = max(operations, 32768), 8
    if operations < memory // 32:
        largest, p = operations // (r * 4), 1
    else:
        largest, p = memory // (r * 128), 0
    n = 2
    while n <= largest // 2 and n < 1 << 62:
        n *= 2
    p = p or max(1, min(operations // 4 // n, 0x3FFFFFFF) // r)
    return n, r, p
