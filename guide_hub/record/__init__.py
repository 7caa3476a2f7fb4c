"""What is said about an erasure in public: the record, its commitments and chain, the card and the sums."""

from guide_hub.record.card import CardInfo, maintainer_notes, render_card
from guide_hub.record.commitments import commit, keep_apart, load_key, matches
from guide_hub.record.folder import check_sums, digests, file_sha256, read_sums, write_sums
from guide_hub.record.record import (
    Base,
    Erasure,
    Held,
    Metrics,
    Record,
    Retained,
    build_record,
    check_link,
    check_subject,
    erasures_of,
    overall,
    parse_record,
    read_record,
    sha256,
    to_bytes,
)

__all__ = [
    "Base",
    "CardInfo",
    "Erasure",
    "Held",
    "Metrics",
    "Record",
    "Retained",
    "build_record",
    "check_link",
    "check_subject",
    "check_sums",
    "commit",
    "digests",
    "erasures_of",
    "file_sha256",
    "keep_apart",
    "load_key",
    "maintainer_notes",
    "matches",
    "overall",
    "parse_record",
    "read_record",
    "read_sums",
    "render_card",
    "sha256",
    "to_bytes",
    "write_sums",
]
