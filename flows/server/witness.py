"""Tells a Prefect server what a run does, from a thread of its own: the run neither waits for the server nor needs it.

What is told is kept by name, the newest only, until the server takes it; so little is kept, however long the server is
away, and it catches up when it is back.
"""

import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Self
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from dreamloom.base.errors import UserError

_log = logging.getLogger(__name__)

MAX_WAITING = 100
"""Things that wait for the server at most; of more, those that wait longest are dropped."""
KEPT_ARTIFACTS = 12
"""Artifacts of one key that a server keeps, one a run: those of a quarter of weekly runs."""
REQUEST_SECONDS = 10.0
"""A server that takes longer for an answer is taken for one that is away."""
RETRY_SECONDS = 5.0
CLOSE_SECONDS = 30.0
"""How long the end of a run waits at most for what is still to be told, if the server was there until then."""

Tell = Callable[[SyncPrefectClient], None]
"""Tells a server something. May be called again if it did not answer."""
_current: ContextVar["Witness | None"] = ContextVar("witness", default=None)


class Witness:
    """The server's view of one flow run. Every method returns at once.

    Args:
        api_url: of the server.
        flow_run_id: the run.
    """

    def __init__(self, api_url: str, flow_run_id: UUID) -> None:
        self.api_url = api_url
        self.flow_run_id = flow_run_id
        self.away = False
        """Whether the server did not answer when it was last told something."""
        self._waiting: dict[str, Tell] = {}
        self._changed = threading.Condition()
        self._closing = self._warned = False
        self._artifacts: dict[str, UUID] = {}
        context = contextvars.copy_context()  # Prefect's settings, such as a key of the server
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="dreamloom-witness", daemon=True)
        self._thread.start()

    def tell(self, name: str, tell: Tell) -> None:
        """Tells the server something soon, in place of what waits under the same name."""
        with self._changed:
            self._waiting.pop(name, None)
            while len(self._waiting) >= MAX_WAITING:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[name] = tell
            self._changed.notify()

    def publish(self, key: str, make: Callable[[], ArtifactCreate]) -> None:
        """Publishes an artifact, or brings it up to date if this run has published it before.

        Args:
            key: of the artifact; the server shows those of one key as a history.
            make: called in the thread, so that images are encoded there.
        """
        self.tell(f"artifact {key}", lambda client: self._publish(client, key, make))

    def warn(self, reason: str) -> None:
        """Says that the server is away, the first time."""
        if not self._warned:
            self._warned = True
            _log.warning("The Prefect server at %s does not answer (%s); the run goes on.", self.api_url, reason)

    def close(self) -> None:
        """Waits a moment for what is still to be told, unless the server is away."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(0.0 if self.away else CLOSE_SECONDS)

    def _work(self) -> None:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), self._client() as client:
            while (taken := self._next()) is not None:
                name, tell = taken
                if not self._told(client, tell) and not self._put_back(name, tell):
                    return

    def _client(self) -> SyncPrefectClient:
        return SyncPrefectClient(self.api_url, httpx_settings={"timeout": REQUEST_SECONDS})

    def _next(self) -> tuple[str, Tell] | None:
        """Waits for what is to be told next; None: all is told, and the run has ended."""
        with self._changed:
            while not self._waiting:
                if self._closing:
                    return None
                self._changed.wait()
            name = next(iter(self._waiting))
            return name, self._waiting.pop(name)

    def _told(self, client: SyncPrefectClient, tell: Tell) -> bool:
        """Returns whether the server took it, or refused it for good."""
        try:
            tell(client)
        except httpx.HTTPError as error:
            if is_away(error):
                self.away = True
                self.warn(str(error) or type(error).__name__)
                return False
            _log.debug("the Prefect server refused: %s", error)
        except (PrefectException, UserError, OSError, ValueError) as error:  # or what is shown is gone by now
            _log.debug("not told to the Prefect server: %s", error)
        self.away = False
        return True

    def _put_back(self, name: str, tell: Tell) -> bool:
        """Keeps it for later, unless something newer waits. Returns False where the run has ended."""
        with self._changed:
            self._waiting = {name: tell, **self._waiting} if name not in self._waiting else self._waiting
            return not self._changed.wait_for(lambda: self._closing, RETRY_SECONDS)

    def _publish(self, client: SyncPrefectClient, key: str, make: Callable[[], ArtifactCreate]) -> None:
        artifact = make()
        if key in self._artifacts:
            update = ArtifactUpdate(data=artifact.data, description=artifact.description)
            client.update_artifact(self._artifacts[key], update)
            return
        artifact.key, artifact.flow_run_id = key, self.flow_run_id
        self._artifacts[key] = client.create_artifact(artifact).id
        older = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])),
            sort=ArtifactSort.CREATED_DESC,
            offset=KEPT_ARTIFACTS,
        )
        for dropped in older:
            client.delete_artifact(dropped.id)

    @classmethod
    def current(cls) -> Self:
        """Returns the witness of the flow run that this code is part of."""
        witness = _current.get()
        assert isinstance(witness, cls), "called outside a flow run of dreamloom"
        return witness


@contextmanager
def witness_of_run() -> Iterator[Witness]:
    """Yields the witness of the flow run that the block is in, whose server hears what is left when the block ends."""
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None and isinstance(context.client, SyncPrefectClient)
    witness = Witness(str(context.client.api_url), context.flow_run.id)
    before = _current.set(witness)
    try:
        yield witness
    finally:
        _current.reset(before)
        witness.close()


def is_away(error: httpx.HTTPError) -> bool:
    """Returns whether a server can't be reached or can't work at the moment: its database is locked, its disk full."""
    return not isinstance(error, httpx.HTTPStatusError) or error.response.status_code >= 500
