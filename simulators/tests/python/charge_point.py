"""A charge point on the Python package `ocpp`: boots, charges, and enforces charging profiles by its own reading of the standard.

Every frame in both directions is checked against the official JSON schemas (the package's default). What happens is told on
standard output, one JSON object per line; a line on standard input is a command:
  stop        ends the transaction
  start       begins another one
  garbage     sends a frame that is not JSON
  unknown     sends a CALL of an action that no OCPP version has
  oversized   sends a frame of 3 MB
  quit        disconnects and exits
"""

import argparse
import asyncio
import json
import sys
import uuid
from datetime import datetime, timezone

import websockets
from ocpp.exceptions import OCPPError
from ocpp.routing import on
from ocpp.v16 import ChargePoint as ChargePoint16
from ocpp.v16 import call as call16
from ocpp.v16 import call_result as result16
from ocpp.v201 import ChargePoint as ChargePoint201
from ocpp.v201 import call as call201
from ocpp.v201 import call_result as result201
from ocpp.v21 import ChargePoint as ChargePoint21
from ocpp.v21 import call as call21
from ocpp.v21 import call_result as result21

VOLTAGE = 230


def tell(event, **facts):
    print(json.dumps({"event": event, **facts}, default=str), flush=True)


def now():
    return datetime.now(timezone.utc)


def rfc3339(time):
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


class Profiles:
    """The profiles installed, and what they allow (OCPP 1.6 section 3.13, OCPP 2.0.1 part 2 K)."""

    def __init__(self, phases, maximum):
        self.installed = {}
        self.phases = phases
        self.maximum = maximum

    def install(self, evse, purpose, level, kind, schedule):
        periods = [(p["start_period"], float(p["limit"])) for p in schedule["charging_schedule_period"]]
        self.installed[(evse, purpose, level)] = (kind, schedule, periods)
        tell(
            "profile",
            evse=evse,
            purpose=purpose,
            level=level,
            kind=kind,
            unit=schedule["charging_rate_unit"],
            start=schedule.get("start_schedule"),
            periods=periods,
        )

    def limit(self, evse, ahead=0):
        """The current per phase that may be drawn now, or so many seconds ahead."""
        limits = [self.maximum]
        for purposes in (("ChargePointMaxProfile", "ChargingStationMaxProfile"), ("TxDefaultProfile", "TxProfile")):
            # TxProfile overrules TxDefaultProfile; within one purpose the highest stack level that says something wins.
            best = None
            for (where, purpose, level), (kind, schedule, periods) in self.installed.items():
                if purpose not in purposes or where not in (0, evse):
                    continue
                value = self.value(kind, schedule, periods, ahead)
                if value is None:
                    continue
                rank = (purpose == "TxProfile", where == evse, level)
                if best is None or rank > best[0]:
                    best = (rank, value)
            if best is not None:
                limits.append(best[1])
        return min(limits)

    def composite(self, evse, duration):
        """What may be drawn from now on, by the second, where it changes."""
        periods = []
        for second in range(duration):
            limit = self.limit(evse, second)
            if not periods or periods[-1]["limit"] != limit:
                periods.append({"startPeriod": second, "limit": limit})
        return periods

    def value(self, kind, schedule, periods, ahead):
        if kind != "Absolute":
            raise ValueError(f"this charge point understands Absolute profiles only, not {kind}")
        elapsed = (now() - parse(schedule["start_schedule"])).total_seconds() + ahead
        duration = schedule.get("duration")
        if elapsed < 0 or (duration is not None and elapsed >= duration):
            return None
        value = None
        for start, limit in periods:
            if start <= elapsed:
                value = limit
        if value is not None and schedule["charging_rate_unit"] == "W":
            value = value / (VOLTAGE * self.phases)
        return value


class Meter:
    """Charges what is allowed, at once: the strictest case for the controller."""

    def __init__(self, wanted):
        self.wanted = wanted
        self.energy_wh = 1000.0
        self.current = 0.0
        self.last = now()

    def advance(self, allowed, phases):
        moment = now()
        self.energy_wh += self.current * VOLTAGE * phases * (moment - self.last).total_seconds() / 3600
        self.last = moment
        self.current = min(self.wanted, allowed) if allowed >= 6 else 0.0


class Station16(ChargePoint16):
    def setup(self, options, profiles, meter):
        self.options, self.profiles, self.meter = options, profiles, meter
        self.transaction = None
        self.begun = False
        return self

    @on("SetChargingProfile")
    def set_profile(self, connector_id, cs_charging_profiles):
        profile = cs_charging_profiles
        self.profiles.install(
            connector_id,
            profile["charging_profile_purpose"],
            profile["stack_level"],
            profile["charging_profile_kind"],
            profile["charging_schedule"],
        )
        return result16.SetChargingProfile(status="Accepted")

    @on("GetCompositeSchedule")
    def composite_schedule(self, connector_id, duration, **_):
        return result16.GetCompositeSchedule(
            status="Accepted",
            connector_id=connector_id,
            schedule_start=rfc3339(now()),
            charging_schedule={
                "duration": duration,
                "chargingRateUnit": "A",
                "chargingSchedulePeriod": self.profiles.composite(connector_id, duration),
            },
        )

    @on("ClearChargingProfile")
    def clear_profile(self, **_):
        self.profiles.installed.clear()
        return result16.ClearChargingProfile(status="Accepted")

    @on("GetConfiguration")
    def get_configuration(self, key=None):
        known = {"ChargeProfileMaxStackLevel": "10", "ChargingScheduleAllowedChargingRateUnit": "Current"}
        keys = [k for k in known if not key or k in key]
        return result16.GetConfiguration(
            configuration_key=[{"key": k, "readonly": True, "value": known[k]} for k in keys],
            unknown_key=[k for k in key or [] if k not in known],
        )

    @on("ChangeConfiguration")
    def change_configuration(self, **_):
        return result16.ChangeConfiguration(status="Accepted")

    @on("TriggerMessage")
    def trigger(self, **_):
        return result16.TriggerMessage(status="NotImplemented")

    @on("Reset")
    def reset(self, **_):
        return result16.Reset(status="Rejected")

    async def boot(self):
        answer = await self.call(
            call16.BootNotification(
                charge_point_vendor="Python", charge_point_model="ocpp", firmware_version="2.1.0"
            )
        )
        tell("booted", status=answer.status, interval=answer.interval)
        await self.status("Charging" if self.transaction else "Preparing")

    async def status(self, status):
        await self.call(
            call16.StatusNotification(connector_id=1, error_code="NoError", status=status, timestamp=rfc3339(now()))
        )

    async def begin(self):
        answer = await self.call(call16.Authorize(id_tag=self.options.token))
        tell("authorized", status=answer.id_tag_info["status"])
        if answer.id_tag_info["status"] != "Accepted":
            return
        answer = await self.call(
            call16.StartTransaction(
                connector_id=1,
                id_tag=self.options.token,
                meter_start=int(self.meter.energy_wh),
                timestamp=rfc3339(now()),
            )
        )
        self.transaction = answer.transaction_id
        self.begun = True
        tell("started", transaction=str(self.transaction), meter_start=int(self.meter.energy_wh))
        await self.status("Charging")

    async def report(self):
        phases = self.options.phases
        sampled = [
            {"value": f"{self.meter.current:.1f}", "measurand": "Current.Import", "phase": f"L{n}", "unit": "A"}
            for n in range(1, phases + 1)
        ]
        sampled.append({"value": str(int(self.meter.energy_wh)), "unit": "Wh"})
        await self.call(
            call16.MeterValues(
                connector_id=1,
                transaction_id=self.transaction,
                meter_value=[{"timestamp": rfc3339(now()), "sampledValue": sampled}],
            )
        )

    async def end(self):
        await self.call(
            call16.StopTransaction(
                meter_stop=int(self.meter.energy_wh),
                timestamp=rfc3339(now()),
                transaction_id=self.transaction,
                reason="Local",
                id_tag=self.options.token,
            )
        )
        tell("stopped", transaction=str(self.transaction), meter_stop=int(self.meter.energy_wh))
        self.transaction = None
        await self.status("Available")


def of_second_generation(base, call, result):
    """A station of OCPP 2.0.1 or 2.1, by the package's module for it: what is used here is the same in both."""

    class Station(base):
        def setup(self, options, profiles, meter):
            self.options, self.profiles, self.meter = options, profiles, meter
            self.transaction = None
            self.begun = False
            self.number = 0
            return self

        @on("SetChargingProfile")
        def set_profile(self, evse_id, charging_profile, **_):
            profile = charging_profile
            self.profiles.install(
                evse_id,
                profile["charging_profile_purpose"],
                profile["stack_level"],
                profile["charging_profile_kind"],
                profile["charging_schedule"][0],
            )
            return result.SetChargingProfile(status="Accepted")

        @on("GetCompositeSchedule")
        def composite_schedule(self, evse_id, duration, **_):
            return result.GetCompositeSchedule(
                status="Accepted",
                schedule={
                    "evseId": evse_id,
                    "duration": duration,
                    "scheduleStart": rfc3339(now()),
                    "chargingRateUnit": "A",
                    "chargingSchedulePeriod": self.profiles.composite(evse_id, duration),
                },
            )

        @on("ClearChargingProfile")
        def clear_profile(self, **_):
            self.profiles.installed.clear()
            return result.ClearChargingProfile(status="Accepted")

        @on("GetVariables")
        def get_variables(self, get_variable_data, **_):
            return result.GetVariables(
                get_variable_result=[
                    {"attributeStatus": "UnknownVariable", "component": v["component"], "variable": v["variable"]}
                    for v in get_variable_data
                ]
            )

        @on("SetVariables")
        def set_variables(self, set_variable_data, **_):
            return result.SetVariables(
                set_variable_result=[
                    {"attributeStatus": "Accepted", "component": v["component"], "variable": v["variable"]}
                    for v in set_variable_data
                ]
            )

        @on("GetBaseReport")
        def get_base_report(self, **_):
            return result.GetBaseReport(status="NotSupported")

        @on("TriggerMessage")
        def trigger(self, **_):
            return result.TriggerMessage(status="NotImplemented")

        async def boot(self):
            answer = await self.call(
                call.BootNotification(
                    charging_station={"vendorName": "Python", "model": "ocpp", "firmwareVersion": "2.1.0"}, reason="PowerUp"
                )
            )
            tell("booted", status=answer.status, interval=answer.interval)
            await self.status("Occupied")

        async def status(self, status):
            await self.call(
                call.StatusNotification(
                    timestamp=rfc3339(now()), connector_status=status, evse_id=1, connector_id=1
                )
            )

        async def event(self, kind, trigger, **info):
            values = [
                {"value": round(self.meter.current, 1), "measurand": "Current.Import", "phase": f"L{n}"}
                for n in range(1, self.options.phases + 1)
            ]
            values.append({"value": int(self.meter.energy_wh), "measurand": "Energy.Active.Import.Register"})
            extra = {}
            if kind != "Updated":
                extra["id_token"] = {"idToken": self.options.token, "type": "ISO14443"}
            answer = await self.call(
                call.TransactionEvent(
                    event_type=kind,
                    timestamp=rfc3339(now()),
                    trigger_reason=trigger,
                    seq_no=self.number,
                    transaction_info={"transactionId": self.transaction, **info},
                    evse={"id": 1, "connectorId": 1},
                    meter_value=[{"timestamp": rfc3339(now()), "sampledValue": values}],
                    **extra,
                )
            )
            self.number += 1
            return answer

        async def begin(self):
            answer = await self.call(call.Authorize(id_token={"idToken": self.options.token, "type": "ISO14443"}))
            tell("authorized", status=answer.id_token_info["status"])
            if answer.id_token_info["status"] != "Accepted":
                return
            self.transaction = str(uuid.uuid4())
            self.begun = True
            self.number = 0
            await self.event("Started", "Authorized", chargingState="Charging")
            tell("started", transaction=self.transaction, meter_start=int(self.meter.energy_wh))

        async def report(self):
            await self.event("Updated", "MeterValuePeriodic", chargingState="Charging")

        async def end(self):
            await self.event("Ended", "StopAuthorized", stoppedReason="Local")
            tell("stopped", transaction=self.transaction, meter_stop=int(self.meter.energy_wh))
            self.transaction = None
            await self.status("Available")

    return Station


async def physics(station):
    """Enforces the profiles ten times a second, connected or not."""
    last = None
    while True:
        allowed = station.profiles.limit(1)
        station.meter.advance(allowed if station.transaction else 0.0, station.options.phases)
        if allowed != last:
            tell("limit", limit=allowed)
            last = allowed
        await asyncio.sleep(0.1)


async def reports(station):
    while True:
        await asyncio.sleep(1)
        if station.transaction:
            await station.report()


async def commands(station, reader):
    """Carries out the lines of standard input. Ends at `quit` or at the end of the input: nobody is there any more."""
    frames = {
        "garbage": "this is not JSON {",
        "unknown": '[2,"unknown-1","MakeCoffee",{"sugar":2}]',
        "oversized": '[2,"big-1","DataTransfer",{"vendorId":"x","data":"' + "x" * 3_000_000 + '"}]',
    }
    while line := await reader.readline():
        command = line.decode().strip()
        if command == "quit":
            return
        if command == "stop":
            await station.end()
        elif command == "start":
            await station.begin()
        elif command in frames:
            try:
                await station._connection.send(frames[command])
            except websockets.WebSocketException:
                # The other side closes while a frame that is too large is still being sent.
                pass
            tell("sent", what=command)


async def connected(socket, station):
    """One connection; returns or raises when it has ended."""
    station._connection = socket

    async def work():
        await station.boot()
        if not station.begun:
            await station.begin()
        tell("ready")
        await reports(station)

    tasks = {asyncio.create_task(station.start()), asyncio.create_task(work())}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


async def connections(station, options):
    """Connects again and again. There is one transaction: it begins with the first connection on which it may."""
    while True:
        try:
            async with websockets.connect(
                f"{options.url}/{options.id}", subprotocols=[f"ocpp{options.version}"], close_timeout=1
            ) as socket:
                tell("connected", subprotocol=socket.subprotocol)
                await connected(socket, station)
        except (OSError, websockets.WebSocketException, asyncio.TimeoutError, OCPPError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            tell("disconnected", error=f"{type(error).__name__}: {error}", status=status)
        await asyncio.sleep(0.2)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True, help="without the identity")
    parser.add_argument("--id", required=True)
    parser.add_argument("--version", choices=["1.6", "2.0.1", "2.1"], required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--phases", type=int, default=3)
    parser.add_argument("--wants", type=float, default=32.0)
    options = parser.parse_args()

    reader = asyncio.StreamReader(limit=1024)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    kind = {
        "1.6": lambda: Station16,
        "2.0.1": lambda: of_second_generation(ChargePoint201, call201, result201),
        "2.1": lambda: of_second_generation(ChargePoint21, call21, result21),
    }[options.version]()
    # A waiting time-out of the package's default 30 s would outlive the tests' patience.
    station = kind(options.id, None, response_timeout=10)
    station.setup(options, Profiles(options.phases, options.wants), Meter(options.wants))
    tasks = [
        asyncio.create_task(work)
        for work in (commands(station, reader), physics(station), connections(station, options))
    ]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    for task in tasks:
        task.cancel()


asyncio.run(main())
