"""The notice that `dreamloom up` has a Prefect server send when a run of a project fails, or its process is gone."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from dreamloom.flows.server.automations import HEARTBEAT, SILENT_SECONDS, ensure, entered
from dreamloom.flows.server.events import resource_name

_FAILED, _CRASHED = "dreamloom: tell of failures of {}", "dreamloom: tell of crashes of {}"


def ensure_notices(
    project: str,
    deployments: Sequence[UUID],
    url: str | None,
    revived_within: timedelta = timedelta(seconds=SILENT_SECONDS),
) -> None:
    """Makes sure that a server tells a web hook of failures of a project's deployments, or no longer does.

    Args:
        project: its name.
        deployments: ids of its deployments.
        url: of the web hook, which gets {"text": …}; None: nobody is told.
        revived_within: how long a Crashed run is given to say that it lives before it is told, as it does where the
            server had been away.

    Raises:
        httpx.HTTPError: the server does not answer, or refuses.
    """
    with get_client(sync_client=True) as client:
        if url is not None:
            ensure(client, list(_notices(project, deployments, url, revived_within)))
            return
        for name in (_FAILED, _CRASHED):
            for automation in client.read_automations_by_name(name.format(project)):
                client.delete_automation(automation.id)


def _notices(project: str, deployments: Sequence[UUID], url: str, within: timedelta) -> Iterator[AutomationCore]:
    block = CustomWebhookNotificationBlock(name=project, url=url, json_data={"text": "{{subject}}: {{body}}"})
    state = "event.payload.validated_state"
    action = SendNotification(
        block_document_id=block.save(f"dreamloom-{resource_name(project)}", overwrite=True),
        subject=f"dreamloom {project}",
        body=f"{{{{ event.resource.name }}}} {{{{ {state}.name }}}}: {{{{ {state}.message }}}}",
    )
    failed = _trigger(deployments, expect={entered("Failed"), entered("TimedOut")}, posture=Posture.Reactive)
    # A server on SQLite may lose an event when many come at once; beats come again.
    gone = _trigger(
        deployments,
        after={entered("Crashed")},
        expect={HEARTBEAT, entered("Running")},
        within=within,
        posture=Posture.Proactive,
        for_each={"prefect.resource.id"},
    )
    for name, why, trigger in (
        (_FAILED, "Posts the sentence that says why a run of the project failed.", failed),
        (_CRASHED, "Posts that a run of the project ended before its time, unless it says soon that it lives.", gone),
    ):
        yield AutomationCore(
            name=name.format(project), description=why, enabled=True, trigger=trigger, actions=[action]
        )


def _trigger(deployments: Sequence[UUID], **more: Any) -> EventTrigger:
    resources = sorted(f"prefect.deployment.{each}" for each in deployments)
    return EventTrigger(
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification({"prefect.resource.role": "deployment", "prefect.resource.id": resources}),
        threshold=1,
        **more,
    )
