"""Key files are exchanged with openssl's form, and a mistake with one is a sentence, not a traceback."""

import base64
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from joserfc.jwk import OKPKey

from agent.protocol import jws, keys

PEM = serialization.Encoding.PEM
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
PKCS8 = serialization.PrivateFormat.PKCS8
RAW = serialization.Encoding.Raw
CLEAR = serialization.NoEncryption()


def private_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def pem(der: bytes) -> bytes:
    return b"-----BEGIN PUBLIC KEY-----\n%b\n-----END PUBLIC KEY-----\n" % base64.b64encode(der)


def load(path: Path) -> object:
    return keys.load_private_key(path) if path.suffix == ".key" else keys.load_public_key(path)


def mistake(path: Path) -> str:
    """What a person is told about this private key, or this public one."""
    with pytest.raises(keys.KeyFileError) as error:
        load(path)
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_a_new_pair_signs_and_verifies(tmp_path: Path) -> None:
    public_path, private_path = keys.write_key_pair(tmp_path / "new" / "keys", "fleet-2026")
    assert (public_path.name, private_path.name) == ("fleet-2026.pem", "fleet-2026.key")
    key = keys.load_private_key(private_path)
    public_key = keys.load_public_key(public_path)
    line, body = jws.split(jws.sign(b"{}", key, "fleet-2026"))
    assert line is not None
    assert jws.Verifier({"fleet-2026": public_key}).verify(line, body) == "fleet-2026"


def test_only_the_owner_may_read_a_new_private_key_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        _, private_path = keys.write_key_pair(tmp_path, "k")
    finally:
        os.umask(before)
    assert stat.S_IMODE(private_path.stat().st_mode) == 0o600


def test_cryptography_and_joserfc_read_what_we_write(tmp_path: Path) -> None:
    public_path, private_path = keys.write_key_pair(tmp_path, "k")
    public = serialization.load_pem_public_key(public_path.read_bytes())
    private = serialization.load_pem_private_key(private_path.read_bytes(), password=None)
    assert isinstance(private, Ed25519PrivateKey)
    assert private.public_key() == public
    assert public_path.read_bytes() == public.public_bytes(PEM, SPKI)
    assert private_path.read_bytes() == private.private_bytes(PEM, PKCS8, CLEAR)
    assert OKPKey.import_key(private_path.read_bytes()).is_private


def test_we_read_what_cryptography_writes(tmp_path: Path) -> None:
    theirs = Ed25519PrivateKey.generate()
    (tmp_path / "k.pem").write_bytes(theirs.public_key().public_bytes(PEM, SPKI))
    private_file(tmp_path / "k.key", theirs.private_bytes(PEM, PKCS8, CLEAR))
    public_raw = theirs.public_key().public_bytes(RAW, serialization.PublicFormat.Raw)
    assert keys.load_public_key(tmp_path / "k.pem") == public_raw
    assert bytes(keys.load_private_key(tmp_path / "k.key").verify_key) == public_raw


def test_windows_line_ends_and_blank_lines_around_the_block_do_no_harm(tmp_path: Path) -> None:
    public_path, _ = keys.write_key_pair(tmp_path, "k")
    wanted = keys.load_public_key(public_path)
    public_path.write_bytes(b"\r\n" + public_path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert keys.load_public_key(public_path) == wanted


def test_a_key_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    public_path, private_path = keys.write_key_pair(tmp_path, "k")
    before = public_path.read_bytes(), private_path.read_bytes()
    with pytest.raises(keys.KeyFileError, match=r"k\.key: exists"):
        keys.write_key_pair(tmp_path, "k")
    private_path.unlink()
    with pytest.raises(keys.KeyFileError, match=r"k\.pem: exists"):
        keys.write_key_pair(tmp_path, "k")
    assert not private_path.exists()
    assert public_path.read_bytes() == before[0]


@pytest.mark.parametrize("kid", ["", "a b", "../k", "k" * 65, "k\n", "é"])
def test_a_key_id_is_what_the_contract_allows(tmp_path: Path, kid: str) -> None:
    with pytest.raises(keys.KeyFileError, match="1-64 of A-Z a-z 0-9 _ -"):
        keys.write_key_pair(tmp_path / "keys", kid)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_hold_keys_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(keys.KeyFileError, match="file: File exists: choose a directory"):
        keys.write_key_pair(tmp_path / "file", "k")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610])
def test_a_private_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    _, path = keys.write_key_pair(tmp_path, "k")
    path.chmod(mode)
    assert "chmod 0600" in mistake(path)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o620])
def test_a_public_key_that_others_may_replace_is_refused(tmp_path: Path, mode: int) -> None:
    path, _ = keys.write_key_pair(tmp_path, "k")
    path.chmod(mode)
    assert "chmod 0644" in mistake(path)


@pytest.mark.parametrize("name", ["k.key", "k.pem"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    assert "No such file" in mistake(tmp_path / name)


@pytest.mark.parametrize("name", ["k.key", "k.pem"])
def test_a_pipe_in_place_of_a_key_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name, 0o600)
    assert "pipe" in mistake(tmp_path / name)


def test_a_pem_file_whose_name_is_no_key_id_is_refused(tmp_path: Path) -> None:
    keys.write_key_pair(tmp_path, "k")[0].rename(tmp_path / "my key.pem")
    assert "1-64 of A-Z a-z 0-9 _ -" in mistake(tmp_path / "my key.pem")


def test_a_directory_in_place_of_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "k.pem").mkdir()
    assert "directory" in mistake(tmp_path / "k.pem")


def test_wrong_contents_are_refused(tmp_path: Path) -> None:
    theirs = Ed25519PrivateKey.generate()
    public = theirs.public_key().public_bytes(PEM, SPKI)
    contents = [
        b"",
        b"not a key",
        b"\xff\xfe\x00",
        public[:-30],
        public + public,
        b"junk\n" + public,
        public.replace(b"PUBLIC", b"PRIVATE"),
        public.replace(b"MCow", b"MCo="),
        theirs.private_bytes(PEM, PKCS8, CLEAR),
        X25519PrivateKey.generate().public_key().public_bytes(PEM, SPKI),
        pem(keys.SPKI_PREFIX + bytes(31)),
        pem(keys.SPKI_PREFIX + bytes(33)),
        pem(keys.SPKI_PREFIX),
        b"-----BEGIN PUBLIC KEY-----\nA\n-----END PUBLIC KEY-----\n",
    ]
    path = tmp_path / "k.pem"
    for content in contents:
        path.write_bytes(content)
        assert "one PEM block `PUBLIC KEY`" in mistake(path)


def test_an_encrypted_or_foreign_private_key_is_refused(tmp_path: Path) -> None:
    theirs = Ed25519PrivateKey.generate()
    path = tmp_path / "k.key"
    for content in (
        theirs.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"secret")),
        theirs.private_bytes(PEM, serialization.PrivateFormat.OpenSSH, CLEAR),
        X25519PrivateKey.generate().private_bytes(PEM, PKCS8, CLEAR),
        theirs.public_key().public_bytes(PEM, SPKI),
    ):
        assert "one PEM block `PRIVATE KEY`" in mistake(private_file(path, content))
