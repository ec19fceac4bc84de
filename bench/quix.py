"""``python -m bench.quix BOOTSTRAP SOURCE TARGET EVENTS FOLDER``: the job of ``bench.peers`` in Quix Streams."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any, Final

from quixstreams import Application, State

_GAP_MS: Final = 30 * 60_000


def session(event: dict[str, Any], state: State) -> dict[str, Any] | None:
    """The event with its session, None when its id was there before; the state is the device's."""
    if state.exists(event["messageId"]):
        return None
    state.set(event["messageId"], 1)
    at = int(datetime.fromisoformat(event["originalTimestamp"]).timestamp() * 1000)
    last, name = state.get("session", (-_GAP_MS, ""))
    if at - last >= _GAP_MS:
        name = f"{event['anonymousId']}:{at}"
    state.set("session", (max(at, last), name))
    event["session_id"] = name
    return event


def main(bootstrap: str, source: str, target: str, events: int, folder: str) -> None:
    """Until so many events are taken; then the last transaction is committed."""
    application = Application(
        broker_address=bootstrap, consumer_group=target, state_dir=folder, auto_offset_reset="earliest",
        processing_guarantee="exactly-once", commit_interval=1.0, loglevel="ERROR",
        producer_extra_config={"compression.type": "lz4", "linger.ms": 5},
    )  # fmt: skip
    frame = application.dataframe(application.topic(source, value_deserializer="json", key_deserializer="str"))
    frame = frame.apply(session, stateful=True).filter(lambda event: event is not None)
    frame.to_topic(application.topic(target, value_serializer="json", key_serializer="str"))
    application.run(count=events, timeout=60)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
