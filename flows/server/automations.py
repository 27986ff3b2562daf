"""Automations of a Prefect server that end flow runs whose process is gone, which the server itself never does.

A run whose worker and process were killed, or whose machine lost its power, would stay Running: it would hold its slot
of the queue for good, and the next scheduled run would be skipped. Heartbeats tell a living run from such a one; it
beats by itself (dreamloom.flows.server.heartbeat), and from its start to its end by Prefect's engine.

A deployment takes part if it has the tag TAG and sets PREFECT_FLOWS_HEARTBEAT_FREQUENCY to HEARTBEAT_SECONDS, as those
of `dreamloom up` do. Others on the same server, which may beat less often or not at all, are left alone.
"""

from collections.abc import Sequence
from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import PREFECT_API_URL, temporary_settings

TAG = "dreamloom"
"""The tag of deployments whose runs the automations watch."""
HEARTBEAT_SECONDS = 30
"""Seconds between two heartbeats of Prefect's engine; the least that it takes (PREFECT_FLOWS_HEARTBEAT_FREQUENCY)."""
BEAT_SECONDS, SILENT_SECONDS = 10.0, 45.0
"""Seconds between two heartbeats of the run itself, and after how many without one it is Crashed: four may be lost."""
NO_HEARTBEAT = "No heartbeat"
"""How the message of a run begins that is Crashed for want of heartbeats."""
ZOMBIE, STILLBORN = "dreamloom: crash runs without a heartbeat", "dreamloom: crash runs that do not begin"
HEARTBEAT = "prefect.flow-run.heartbeat"
"""The event by which a run tells that it lives."""
_AT_REST = (
    *("Completed", "Failed", "Cancelled", "Crashed", "TimedOut", "RolledBack"),
    *("Scheduled", "AwaitingRetry", "Paused", "Suspended", "AwaitingConcurrencySlot"),
)
"""Names of states in which no process is expected to live. Cancelling is none: its process ends the cancellation."""


def ensure_automations(
    api_url: str | None = None,
    within: timedelta = timedelta(seconds=SILENT_SECONDS),
    begin_within: timedelta = timedelta(minutes=3),
) -> None:
    """Makes sure that a server has these automations as they are here. Creates or updates what is not so.

    Args:
        api_url: of the server; None: that of Prefect's settings.
        within: how long after its last heartbeat a run is Crashed. A run beats every BEAT_SECONDS.
        begin_within: how long a worker may take to start a run's process.

    Raises:
        httpx.HTTPError: the server does not answer, or refuses.
    """
    with temporary_settings({PREFECT_API_URL: api_url} if api_url else {}), get_client(sync_client=True) as client:
        ensure(client, [_zombie(within), _stillborn(begin_within)])


def ensure(client: SyncPrefectClient, wanted: Sequence[AutomationCore]) -> None:
    """Creates automations, or updates those of their names that are otherwise."""
    existing = {automation.name: automation for automation in client.read_automations()}
    for automation in wanted:
        before = existing.get(automation.name)
        if before is None:
            client.create_automation(automation)
        elif _facts(before) != _facts(automation):
            client.update_automation(before.id, automation)


def _zombie(within: timedelta) -> AutomationCore:
    expected = {HEARTBEAT, *map(entered, _AT_REST)}
    message = (
        f"{NO_HEARTBEAT} for {within.total_seconds():.0f} s: its process is gone. The next run goes on from there."
    )
    description = "A run that stopped telling that it lives is Crashed, so that its queue goes on."
    return _crash(ZOMBIE, description, {HEARTBEAT}, expected, within, message)


def _stillborn(within: timedelta) -> AutomationCore:
    # A server on SQLite may lose an event when many come at once, such as that of Running; beats come again.
    expected = {HEARTBEAT, *(entered(name) for name in (*_AT_REST, "Running", "Cancelling", "Retrying"))}
    message = f"A worker took the run and did not start it within {within.total_seconds():.0f} s."
    description = "A run whose worker went before it was started is Crashed, so that its queue goes on."
    return _crash(STILLBORN, description, {entered("Pending")}, expected, within, message)


def entered(state: str) -> str:
    """Returns the event of a flow run that enters a state of this name."""
    return f"prefect.flow-run.{state}"


def _crash(
    name: str, description: str, after: set[str], expected: set[str], within: timedelta, message: str
) -> AutomationCore:
    trigger = EventTrigger(
        after=after,
        expect=expected,
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification(
            {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
        ),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=within,
    )
    action = ChangeFlowRunState(state=StateType.CRASHED, message=message)
    return AutomationCore(name=name, description=description, enabled=True, trigger=trigger, actions=[action])


def _facts(automation: AutomationCore) -> dict[str, object]:
    """All that an automation is, without what the server adds: ids, and the order of its sets."""
    trigger = automation.trigger.model_dump(mode="json", exclude={"id"})
    facts = automation.model_dump(mode="json", include={"name", "description", "enabled", "actions"})
    return facts | {"trigger": {key: sorted(v) if isinstance(v, list) else v for key, v in trigger.items()}}
