"""The core: all use cases on one store, one dispatcher and one clock, and how they start and stop."""

from __future__ import annotations

from ..clock import Clock
from ..dispatch import Dispatcher
from ..settings import Settings
from ..storage.operations.sessions import BeatBroker, StartBroker
from ..storage.records import Backlog
from ..storage.store import Store
from .audit import Audit
from .cancel import Cancellations
from .dispatching import Dispatching
from .events import Events
from .expiry import Expiry
from .flows import Flows
from .hub import Hub
from .keeping import Keeping
from .late import LateRuns
from .queues import Queues
from .registry import Registry
from .reports import Reports
from .retention import Retention
from .services import ServiceBoard
from .sessions import Sessions
from .submit import Submissions
from .supervision import Supervision
from .tag_limits import TagLimits
from .taking import Taking
from .transitions import Transitions
from .unserved import Unserved
from .waiting import Waiting
from .watching import Watching
from .workers import Workers


class Core:
    """What the edges call. Lives on one event loop; made inside it."""

    def __init__(self, broker_id: str, version: str, settings: Settings, clock: Clock, store: Store) -> None:
        self.broker_id = broker_id
        self.settings = settings
        self.clock = clock
        self.store = store
        self.hub = Hub()
        self.registry = Registry()
        self.ready = False
        self._version = version
        dispatcher = Dispatcher(settings.window_size, settings.window_sizes)
        self.unserved = Unserved(clock, store, dispatcher)
        dispatching = Dispatching(broker_id, clock, store, dispatcher, self.hub, self.registry, self.unserved)
        self.dispatcher = dispatcher
        self.dispatching = dispatching
        self.waiting = Waiting(store, dispatching)
        self.hub.listen(self.waiting.finished)
        self.submissions = Submissions(clock, store, dispatcher, dispatching, self.waiting)
        self.queues = Queues(store, dispatcher, dispatching)
        self.sessions = Sessions(
            broker_id, settings, clock, store, dispatcher, dispatching, self.registry, self.queues.tell
        )
        self.taking = Taking(broker_id, clock, store, dispatcher, dispatching, self.registry, self.sessions)
        self.reports = Reports(clock, dispatcher, dispatching, self.hub)
        self.transitions = Transitions(store, dispatcher, dispatching, self.hub, self.registry, self.submissions)
        self.cancellations = Cancellations(store, self.transitions)
        self.events = Events(self.registry, self.transitions)
        self.watching = Watching(store, self.hub)
        self.supervision = Supervision(settings.timers, clock, store, self.registry, self.sessions)
        self.flows = Flows(store, self.transitions)
        self.tag_limits = TagLimits(store)
        self.keeping = Keeping(store)
        self.services = ServiceBoard()
        self.services.add(dispatching.due.state)
        own = settings.services
        if not own.due:
            dispatching.due.switch_off()
        self.late = LateRuns(clock, store, self.registry, dispatcher, own.late_after, own.late_after_of)
        self.expiry = Expiry(clock, store, self.transitions)
        self.retention = Retention(clock, store, own.keep_successes, own.keep_failures)
        self.audit = Audit(clock, store, self.registry, dispatcher, dispatching, self.sessions, self.transitions)
        self.workers = Workers(clock, self.registry, dispatcher)
        store.on_recovery(self.sessions.renew_graces)

    async def start(self) -> Backlog:
        """Recover: adopt the sessions, which may resume from now on, and dispatch what is due.

        There is no other path: a first start finds nothing. The backlog stays in the database until somebody
        asks for its keys.
        """
        await self.store.run(StartBroker(self.broker_id, self._version))
        await self.waiting.recover()
        backlog = await self.store.backlog()
        for session in backlog.sessions:
            adopted = self.sessions.adopt(session)
            if session.dialect is not None:
                self.taking.adopt(adopted)
        self.dispatching.start()
        self.ready = True
        return backlog

    async def beat(self) -> None:
        """Say in the database that this broker is alive."""
        await self.store.run(BeatBroker(self.broker_id))

    def drain(self) -> None:
        """Lease nothing more, put off new runs, and tell the workers; reports are still taken."""
        self.ready = False
        self.submissions.draining = True
        self.dispatching.stop()
        for session in self.registry:
            if session.port is not None:
                session.port.draining(self.settings.timers.resume / 10)

    def holds_runs(self) -> bool:
        """Say whether some connected session has runs that it may still report."""
        return any(session.held and session.port is not None for session in self.registry)

    async def close(self) -> None:
        """Commit what waits and let go of the database. Sessions stay in it, and may resume."""
        self.ready = False
        await self.dispatching.close()
        await self.store.close()
