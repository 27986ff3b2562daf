"""Tells a Prefect server that a run lives, from a thread of its own, which beats while the main thread trains.

Prefect's engine beats every 30 s at most, too seldom to tell within a minute that a process is gone. A server that was
away has heard no beat and may take the run for dead when it is back: it is told of the beats that it missed, and the
state of a run that was Crashed for want of them is Running again.
"""

import contextvars
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.events.related import tags_as_related_resources
from prefect.events.schemas.events import Event, RelatedResource, Resource
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Running

from dreamloom.flows.server.automations import BEAT_SECONDS, HEARTBEAT, NO_HEARTBEAT

_log = logging.getLogger(__name__)

RETRY_SECONDS, REQUEST_SECONDS = 2.0, 5.0
"""Between two tries where the server is away, and how long it may take for an answer."""
MAX_MISSED = 100
"""Beats at most that a server is told of at once."""


class Heart:
    """Beats for a flow run until it is closed.

    Args:
        api_url: of the server.
        flow_run: the run.
    """

    def __init__(self, api_url: str, flow_run: FlowRun) -> None:
        self._api_url, self._run = api_url, flow_run
        self._told = datetime.now(UTC) - timedelta(seconds=BEAT_SECONDS)
        self._away = False
        self._closing = threading.Event()
        context = contextvars.copy_context()  # Prefect's settings, such as a key of the server
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="dreamloom-heart", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the beats, so that none comes after the run's final state; does not wait for a server that is away."""
        self._closing.set()
        self._thread.join(0.0 if self._away else REQUEST_SECONDS)

    def _work(self) -> None:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), self._client() as client:
            while not self._closing.wait(self._beat(client)):
                pass

    def _client(self) -> SyncPrefectClient:
        return SyncPrefectClient(self._api_url, httpx_settings={"timeout": REQUEST_SECONDS})

    def _beat(self, client: SyncPrefectClient) -> float:
        """Tells the server; returns the seconds until the next time."""
        now = datetime.now(UTC)
        try:
            client.request("POST", "/events", json=[each.model_dump(mode="json") for each in self._beats(now)])
            self._told, self._away = now, False
            self._revive(client)
        except httpx.HTTPError as error:
            _log.debug("no heartbeat: %s", error)
            self._away = True
            return RETRY_SECONDS
        except (PrefectException, OSError, ValueError) as error:
            _log.debug("no heartbeat: %s", error)
        return BEAT_SECONDS

    def _beats(self, now: datetime) -> list[Event]:
        resource = Resource(
            {"prefect.resource.id": f"prefect.flow-run.{self._run.id}", "prefect.resource.name": self._run.name}
        )
        related = [*_deployment(self._run), *tags_as_related_resources(set(self._run.tags))]
        times = missed_beats(self._told, now)
        return [Event(event=HEARTBEAT, resource=resource, related=related, occurred=time) for time in times]

    def _revive(self, client: SyncPrefectClient) -> None:
        """Makes the run Running again if the server took it for dead, as it heard no beat while it was away."""
        state = client.read_flow_run(self._run.id).state
        if state is None or state.type is not StateType.CRASHED or self._closing.is_set():
            return
        if str(state.message).startswith(NO_HEARTBEAT):
            lives: State[Any] = Running(message="Its process lives: the server was away, or the machine asleep.")
            client.set_flow_run_state(self._run.id, lives, force=True)


def _deployment(run: FlowRun) -> list[RelatedResource]:
    """The deployment of a run, by which automations of a project know its events."""
    if run.deployment_id is None:
        return []
    resource_id = f"prefect.deployment.{run.deployment_id}"
    return [RelatedResource({"prefect.resource.id": resource_id, "prefect.resource.role": "deployment"})]


def missed_beats(told: datetime, now: datetime) -> list[datetime]:
    """Returns the times of beats since the last one that a server took, evenly, the last one now.

    The process lived all the while. Of very many the last MAX_MISSED.
    """
    step = timedelta(seconds=BEAT_SECONDS)
    count = min(max(1, round((now - told) / step)), MAX_MISSED)
    return [now - place * step for place in reversed(range(count))]


@contextmanager
def beating() -> Iterator[None]:
    """Beats for the flow run that the block is in."""
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None and isinstance(context.client, SyncPrefectClient)
    heart = Heart(str(context.client.api_url), context.flow_run)
    try:
        yield
    finally:
        heart.close()
