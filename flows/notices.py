"""The notice that `dreamloom up` has a Prefect server send when a run of a project fails, or its process is gone."""

from collections.abc import Iterable

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from dreamloom.flows.automations import ensure
from dreamloom.flows.events import resource_name

_FAILED = ("Failed", "Crashed", "TimedOut")
"""Names of states that are told."""


def ensure_notice(project: str, deployments: Iterable[str], url: str | None) -> None:
    """Makes sure that a server tells a web hook of failures of a project's deployments, or no longer does.

    Args:
        project: its name.
        deployments: names of its deployments.
        url: of the web hook, which gets {"text": …}; None: nobody is told.

    Raises:
        httpx.HTTPError: the server does not answer, or refuses.
    """
    name = f"dreamloom: tell of failures of {project}"
    with get_client(sync_client=True) as client:
        if url is not None:
            ensure(client, [_notice(name, project, deployments, url)])
            return
        for automation in client.read_automations_by_name(name):
            client.delete_automation(automation.id)


def _notice(name: str, project: str, deployments: Iterable[str], url: str) -> AutomationCore:
    block = CustomWebhookNotificationBlock(name=project, url=url, json_data={"text": "{{subject}}: {{body}}"})
    trigger = EventTrigger(
        expect={f"prefect.flow-run.{state}" for state in _FAILED},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification(
            {"prefect.resource.role": "deployment", "prefect.resource.name": sorted(set(deployments))}
        ),
        posture=Posture.Reactive,
        threshold=1,
    )
    state = "event.payload.validated_state"
    action = SendNotification(
        block_document_id=block.save(f"dreamloom-{resource_name(project)}", overwrite=True),
        subject=f"dreamloom {project}",
        body=f"{{{{ event.resource.name }}}} {{{{ {state}.name }}}}: {{{{ {state}.message }}}}",
    )
    description = "Posts the sentence that says why a run of the project failed."
    return AutomationCore(name=name, description=description, enabled=True, trigger=trigger, actions=[action])
