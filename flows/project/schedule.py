"""When a project runs by itself."""

import os
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator

from dreamloom.base.stage import NO_RECIPE, StageConfig


class ScheduleConfig(StageConfig):
    """When `dreamloom up` runs the chain."""

    cron: Annotated[str, NO_RECIPE] = Field(
        "0 3 * * 1",
        description="When the chain runs: minute, hour, day of the month, month, day of the week (0 or SUN: Sunday); "
        "0 3 * * 1 is Monday at 3.",
    )
    timezone: Annotated[str | None, NO_RECIPE] = Field(
        None, description="Time zone of these times, such as Europe/Paris; null: this machine's."
    )

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, cron: str) -> str:
        try:
            is_valid = len(cron.split()) == 5 and bool(CronSim(cron, datetime.now()))  # it takes seconds, Prefect none
        except CronSimError:
            is_valid = False
        if not is_valid:
            raise ValueError(
                f"{cron!r} is no schedule; write minute, hour, day, month and day of the week, such as 0 3 * * 1"
            )
        return cron

    @field_validator("timezone")
    @classmethod
    def _is_timezone(cls, timezone: str | None) -> str | None:
        if timezone is not None:
            try:
                ZoneInfo(timezone)
            except (ValueError, OSError, KeyError):
                raise ValueError(f"{timezone!r} is no time zone; write one such as Europe/Paris, or UTC") from None
        return timezone


def timezone_of(schedule: ScheduleConfig) -> str:
    """Returns the name of a schedule's time zone, also where it leaves it open."""
    return schedule.timezone or _local_timezone()


def next_run(schedule: ScheduleConfig) -> datetime:
    """Returns when the chain runs next."""
    due: datetime = next(CronSim(schedule.cron, datetime.now(ZoneInfo(timezone_of(schedule)))))
    return due


def _local_timezone() -> str:
    """The name of this machine's time zone; UTC where it says none."""
    for name in (os.environ.get("TZ", ""), os.path.realpath("/etc/localtime").partition("zoneinfo/")[2]):
        try:
            return ZoneInfo(name).key
        except (ValueError, OSError, KeyError):
            continue
    return "UTC"
