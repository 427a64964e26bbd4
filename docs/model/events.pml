/* The way of an event: from the producer's commit, through relay and broker, to the consumer's effect. README.md says
   what is checked, and how. It is written for Spin (https://spinroot.com).

   Each option of a loop is an action: what one process does without an interruption by another. Between two actions
   anything may happen to anybody. The comment on an action names the function that it models, in
   libs/common/src/common/messaging. An action that decreases `faults` is something that goes wrong. */

/* Bounds. All can be set with -D. */
#ifndef AGGREGATES
#define AGGREGATES 1
#endif
#ifndef VERSIONS
#define VERSIONS   2        /* of each aggregate: as many events, and at most 8 in all */
#endif
#ifndef FAULTS
#define FAULTS     1
#endif
#ifndef RELAYS
#define RELAYS     2        /* 1 or 2 */
#endif
#ifndef CONSUMERS
#define CONSUMERS  2
#endif
#ifndef PREFETCH
#define PREFETCH   1        /* messages that a consumer receives before it acknowledges */
#endif
#ifndef TIERS
#define TIERS      1        /* retry queues, at most 3 */
#endif
#ifndef REPLAYS
#define REPLAYS    1        /* of parked messages */
#endif
#ifndef DISCARDS
#define DISCARDS   0        /* of parked messages */
#endif
#ifndef LATE
#define LATE       0        /* 1: the consumer starts for the first time while events are published */
#endif

/* Faults of the code, one at a time. Each is refuted. */
#define ACK_FIRST    1      /* acknowledge before the commit */
#define CURSOR       2      /* read the outbox from the highest id on that was published, not by presence */
#define NO_FENCE     3      /* remove published rows also when the transaction with the lead has ended */
#define CLOSE_FIRST  4      /* `parked replay` closes the row after the publish; parking again does nothing */
#define ANY_VERSION  5      /* process an unknown aggregate's event at any version */
/* Faults of release 0.1.0 and later, which this model found. */
#define CLOSE_SOME   6      /* close the parked row only for a message that is redelivered or replayed */
#define PARK_DONE    7      /* park a message although a copy of it was processed meanwhile */
/* Worlds in which less is promised. */
#define LOSE_ORIGIN  8      /* a failover of the producer's database loses its last commits */
#define LOSE_TARGET  9      /* a failover of the consumer's database loses its last commits */
#define IMPATIENT    10     /* a deferred message waits less long than an earlier one is on its way */
#ifndef WORLD
#define WORLD 0
#endif

/* An event is a number. Sets of events are bits. */
#define AGGREGATE(e) ((e) / VERSIONS)
#define VERSION(e)   ((e) % VERSIONS + 1)
#define NAME(e)      65 + AGGREGATE(e), VERSION(e)
#define BIT(e)       (1 << (e))
#define IN(e, set)   (((set) >> (e)) & 1)
#define OF(a)        (((1 << VERSIONS) - 1) << ((a) * VERSIONS))
#define EARLIER(e)   (OF(AGGREGATE(e)) & (BIT(e) - 1))
#define ALL(P)       (P(0) | P(1) << 1 | P(2) << 2 | P(3) << 3 | P(4) << 4 | P(5) << 5 | P(6) << 6 | P(7) << 7)
#define LATER(e)     (OF(AGGREGATE(e)) & ~((BIT(e) << 1) - 1))

/* A message is an event with headers. */
#define EVENT(m)     ((m) & 7)
#define ATTEMPT(m)   (((m) >> 3) & 3)
#define ONE_ATTEMPT  8
#if WORLD == IMPATIENT
#define WAITED       32     /* else it has no effect: only what is on time has waited */
#else
#define WAITED       0
#endif
#if WORLD == CLOSE_SOME
#define MARKED       64     /* redelivered or replayed: else it has no effect */
#else
#define MARKED       0
#endif

/* The producer's database. */
byte outbox, event_log;
byte lead;                  /* 1 + the relay whose transaction holds the advisory lock, or 0 */
byte ids[8], last_id, cursor;
#define committed    (outbox | event_log)

/* The broker. Queues keep their order; what is returned to one goes behind what waits there. */
chan queue = [14] of { byte };
chan retry_queue = [8] of { byte };
byte stale;                 /* sent on a connection that is lost: it may still arrive */
byte arrived;               /* once at least */
bool bound = !LATE;

/* The consumer's database. */
byte inbox, deferred, parked;
byte known[AGGREGATES];     /* aggregate_versions */
#define UNKNOWN      0      /* else the version + 1 */
bool keeps_order = !LATE;

/* What no process knows. */
byte faults = FAULTS;
byte discarded, once_parked, missed;
byte young;                 /* aggregates that began after the consumer kept their order */
bool behind[2];             /* another relay has appended to the log since this one got the lead */
bool busy_relay, busy_consumer; /* equal processes: the second one begins only while the first one works */

#define claim(condition, text) if :: condition :: else -> printf(text); assert(false) fi

inline pick(e, set) {
    if
    :: IN(0, set) -> e = 0 :: IN(1, set) -> e = 1 :: IN(2, set) -> e = 2 :: IN(3, set) -> e = 3
    :: IN(4, set) -> e = 4 :: IN(5, set) -> e = 5 :: IN(6, set) -> e = 6 :: IN(7, set) -> e = 7
    fi
}

inline arrive(e) {
    claim(IN(e, committed), "BROKEN: an event of no committed change is published\n");
    claim((EARLIER(e) & ~arrived) == 0, "BROKEN: an event arrives, and an earlier one of its aggregate has not\n");
    arrived = arrived | BIT(e);
    if
    :: bound -> queue!e
    :: else -> missed = missed | BIT(e)
    fi
}

proctype Producer(byte a) {
    byte v;
    bool is_open;
end:
    do
    :: d_step { v < VERSIONS && !is_open ->         /* outbox.record, with the aggregate locked */
        is_open = true;
        if
        :: v == 0 && keeps_order -> young = young | BIT(a)
        :: else
        fi;
#if WORLD == CURSOR
        last_id++; ids[a * VERSIONS + v] = last_id;
#endif
        printf("The producer of %c writes %c v%d into the outbox.\n", 65 + a, 65 + a, v + 1) }
    :: d_step { is_open ->
        outbox = outbox | BIT(a * VERSIONS + v); v++; is_open = false;
        printf("The producer of %c commits v%d.\n", 65 + a, v) }
    od
}

#if WORLD == CURSOR
#define after_cursor(e) (IN(e, outbox) && ids[e] > cursor)
#define pending ALL(after_cursor)
#else
#define pending outbox
#endif
#define is_first(e) (IN(e, rows & ~confirmed) && !(EARLIER(e) & rows & ~confirmed))     /* of its aggregate */

inline move(confirmed) {
    claim(!behind[me] || !(confirmed & outbox), "BROKEN: the log grows behind its end, where its readers have been\n");
    behind[1 - me] = confirmed != 0;
    outbox = outbox & ~confirmed;
    event_log = event_log | confirmed;
#if WORLD == CURSOR
    do
    :: e < 8 -> cursor = (IN(e, confirmed) && ids[e] > cursor -> ids[e] : cursor); e++
    :: e == 8 -> break
    od;
    e = 0
#endif
}

inline end_batch() {
    lead = (lead == me + 1 -> 0 : lead);
    busy_relay = busy_relay && me != 0;
    rows = 0; confirmed = 0; works = 0; gave_up = false; behind[me] = false
}

proctype Relay(byte me) {
    byte rows, confirmed, e, works;
    bool gave_up;
end:
    do
    :: d_step { !works && lead == 0 && pending && (me == 0 || busy_relay) ->  /* outbox_partitions.lock */
        lead = me + 1; behind[me] = false; works = 1; busy_relay = busy_relay || me == 0;
        printf("Relay %d leads.\n", me + 1) }
    :: d_step { works == 1 && (lead == me + 1 || WORLD == NO_FENCE) -> rows = pending; works = 2;
        printf("Relay %d reads the outbox.\n", me + 1) }
    :: d_step { works == 1 && lead != me + 1 && WORLD != NO_FENCE -> end_batch() }  /* the read fails */
    :: atomic { works == 2 && !gave_up && (rows & ~confirmed) ->        /* publisher.Publisher._in_order */
        pick(e, ALL(is_first));
        if
        :: d_step { true -> printf("Relay %d publishes %c v%d, and gets the confirm.\n", me + 1, NAME(e));
            arrive(e); confirmed = confirmed | BIT(e); e = 0 }
        :: d_step { faults -> faults--; stale = stale | BIT(e); gave_up = true;
            printf("Relay %d publishes %c v%d, and gets no confirm in time.\n", me + 1, NAME(e)); e = 0 }
        fi }
    :: d_step { works == 2 && (gave_up || rows == confirmed) ->         /* outbox_partitions.move, and the commit */
        if
        :: lead == me + 1 || WORLD == NO_FENCE ->
            printf("Relay %d moves what was confirmed to the log, and commits.\n", me + 1);
            move(confirmed)
        :: else -> printf("Relay %d cannot commit: its transaction has ended.\n", me + 1)
        fi;
        end_batch() }
    :: d_step { works && lead == me + 1 && faults -> faults--; lead = 0;
        printf("PostgreSQL ends the transaction of relay %d, which does not notice.\n", me + 1) }
    :: d_step { works && faults -> faults--;
        printf("Relay %d dies.\n", me + 1);
        if :: works == 2 -> stale = stale | ALL(is_first) :: else fi;    /* what it has just sent may still arrive */
        end_batch() }
    od
}

proctype Network() {
    byte m;
end:
    do
    :: atomic { stale -> pick(m, stale); d_step { stale = stale & ~BIT(m);
        printf("What was sent on the lost connection arrives: %c v%d.\n", NAME(m)); arrive(m); m = 0 } }
    :: atomic { stale -> pick(m, stale); d_step { stale = stale & ~BIT(m);
        printf("What was sent on the lost connection is lost: %c v%d.\n", NAME(m)); m = 0 } }
    :: d_step { nempty(retry_queue) -> retry_queue?m; queue!m;
        printf("%c v%d returns from its retry queue.\n", NAME(EVENT(m))); m = 0 }
    od
}

#define a_of(m)       AGGREGATE(EVENT(m))
#define is_unseen(m)  (WORLD != ANY_VERSION && known[a_of(m)] == UNKNOWN && VERSION(EVENT(m)) > 1 && IN(a_of(m), young))
#define is_gap(m)     (known[a_of(m)] != UNKNOWN && VERSION(EVENT(m)) > known[a_of(m)])
#define is_early(m)   ((is_unseen(m) || is_gap(m)) && !((m) & WAITED))
#define advance(e, v) known[AGGREGATE(e)] = (known[AGGREGATE(e)] > (v) -> known[AGGREGATE(e)] : (v) + 1)

#define check_parked() claim(!(parked & inbox) || WORLD == CLOSE_FIRST, "BROKEN: an event is both parked and done\n")

/* One message of batch.process_batch. A whole batch is several of these without interruption. */
inline process(m) {
    if
    :: is_early(m) ->                               /* _split_by_order, deferred.defer */
        printf("Consumer %d defers %c v%d: an earlier version is missing.\n", me + 1, NAME(EVENT(m)));
        advance(EVENT(m), 0); deferred = deferred | BIT(EVENT(m))
    :: else ->
        advance(EVENT(m), VERSION(EVENT(m)));
        if
        :: IN(EVENT(m), inbox) ->                   /* inbox.first_deliveries */
            printf("Consumer %d receives %c v%d, which is done already.\n", me + 1, NAME(EVENT(m)))
        :: else ->
            printf("Consumer %d processes %c v%d, and commits.\n", me + 1, NAME(EVENT(m)));
            claim(!(inbox & LATER(EVENT(m))) || IN(EVENT(m), once_parked) || !IN(a_of(m), young),
                  "BROKEN: an event has its effect after a later one of its aggregate\n");
            inbox = inbox | BIT(EVENT(m))
        fi;
        if                                          /* parked.close_processed */
        :: WORLD != CLOSE_FIRST && (WORLD != CLOSE_SOME || (m & MARKED)) -> parked = parked & ~BIT(EVENT(m))
        :: else
        fi
    fi;
    check_parked()
}

/* Of two copies of an event in two processes, one may fail for good and the other not. */
inline park(m) {                                    /* parked.park */
    if
    :: !IN(EVENT(m), inbox) || WORLD == PARK_DONE ->
        printf("Consumer %d parks %c v%d, and commits.\n", me + 1, NAME(EVENT(m)));
        parked = parked | BIT(EVENT(m)); once_parked = once_parked | BIT(EVENT(m))
    :: else -> printf("Consumer %d does not park %c v%d: a copy of it is done.\n", me + 1, NAME(EVENT(m)))
    fi;
    advance(EVENT(m), VERSION(EVENT(m)));
    check_parked()
}

inline return_unacknowledged() {
    do
    :: i < size && !acked -> queue!(batch[i] | MARKED); i++
    :: i == size || acked -> break
    od;
    i = 0
}

inline end_delivery() {
    do
    :: size > 0 -> size--; batch[size] = 0
    :: else -> break
    od;
    at = 0; fails = 0; acked = false; busy_consumer = busy_consumer && me != 0
}

proctype Consumer(byte me) {
    byte batch[PREFETCH];
    byte size, at, i, fails;
    bool acked;             /* the broker has forgotten the batch, or given it to another */
end:
    do
    :: d_step { at == 0 && !fails && size < PREFETCH && nempty(queue) && (me == 0 || size || busy_consumer) ->
        queue?batch[size]; size++;                  /* deliveries.Deliveries.next_batch */
        busy_consumer = busy_consumer || me == 0; acked = WORLD == ACK_FIRST;
        printf("Consumer %d receives %c v%d.\n", me + 1, NAME(EVENT(batch[size - 1]))) }
    :: d_step { at < size && !fails -> process(batch[at]); at++ }
    :: d_step { at < size && !fails && !is_early(batch[at]) && !IN(EVENT(batch[at]), inbox) -> fails = 1;
        printf("Consumer %d fails on %c v%d, and rolls back.\n", me + 1, NAME(EVENT(batch[at]))) }
    :: d_step { fails == 1 && ATTEMPT(batch[at]) < TIERS -> fails = 2;  /* consumer.Consumer._retry_or_park */
        advance(EVENT(batch[at]), VERSION(EVENT(batch[at])) - 1) }
    :: d_step { fails == 2 -> retry_queue!((batch[at] + ONE_ATTEMPT) & ~MARKED); at++; fails = 0;
        printf("Consumer %d sends %c v%d to a retry queue.\n", me + 1, NAME(EVENT(batch[at - 1]))) }
    :: d_step { fails == 2 && faults -> faults--; retry_queue!((batch[at] + ONE_ATTEMPT) & ~MARKED); fails = 0;
        printf("Consumer %d sends %c v%d to a retry queue, gets no confirm, and begins again.\n",
               me + 1, NAME(EVENT(batch[at]))) }
    :: d_step { fails == 1 -> park(batch[at]); at++; fails = 0 }    /* the last attempt, or is_unstorable */
    :: d_step { size && at == size -> end_delivery();                   /* Deliveries.acknowledge */
        printf("Consumer %d acknowledges.\n", me + 1) }
    :: d_step { size && faults -> faults--; return_unacknowledged(); end_delivery();
        printf("Consumer %d dies. What it did not acknowledge returns to the queue.\n", me + 1) }
    :: d_step { size && !acked && faults -> faults--; return_unacknowledged(); acked = true;
        printf("The connection of consumer %d is lost: what it works on returns to the queue.\n", me + 1) }
    od
}

#define is_due(e) (IN(e, deferred) && (VERSION(e) <= known[AGGREGATE(e)] || WORLD == IMPATIENT))

proctype Releaser() {                               /* deferred.release, of whichever process */
    byte e;
    bool sent;
end:
    do
    :: atomic { ALL(is_due) && !sent -> pick(e, ALL(is_due)); d_step { queue!(e | WAITED); sent = true;
        printf("Deferred %c v%d is sent to the queue again.\n", NAME(e)) } }
    :: d_step { sent -> deferred = deferred & ~BIT(e); sent = false; e = 0 }
    :: d_step { sent && faults -> faults--; sent = false; e = 0;
        printf("Its process dies before it commits the row's deletion.\n") }
    od
}

proctype Operator() {
    byte e, replays = REPLAYS, discards = DISCARDS;
    bool published;
end:
    do
    :: atomic { parked && replays && !published -> pick(e, parked); d_step { replays--; queue!(e | MARKED);
        printf("An operator replays %c v%d: it is published.\n", NAME(e));      /* parked.replay */
        published = WORLD == CLOSE_FIRST; e = (published -> e : 0) } }
    :: d_step { published -> parked = parked & ~BIT(e); published = false;
        printf("The replay of %c v%d closes its row, and commits.\n", NAME(e)); e = 0 }
    :: atomic { parked && discards && !published -> pick(e, parked); d_step { discards--;
        printf("An operator discards %c v%d.\n", NAME(e));                      /* parked.discard */
        parked = parked & ~BIT(e); discarded = discarded | BIT(e); e = 0 } }
    od
}

proctype Deployment() {  /* consumer.Consumer._declare, receiver.Receiver.attach: only if LATE */
end:
    do
    :: d_step { !bound -> bound = true; printf("The consumer binds its queue for the first time.\n") }
    :: d_step { bound && !keeps_order -> keeps_order = true; printf("The consumer keeps the order from now on.\n") }
    od
}

#if WORLD == LOSE_ORIGIN || WORLD == LOSE_TARGET
proctype Standby() {
    byte old_outbox, old_log, old_inbox, old_parked, old_deferred, i;
    byte old_known[AGGREGATES];
end:
    do
#if WORLD == LOSE_ORIGIN
    :: d_step { old_outbox != outbox || old_log != event_log -> old_outbox = outbox; old_log = event_log }
    :: d_step { faults && (old_outbox != outbox || old_log != event_log) -> faults--;
        outbox = old_outbox; event_log = old_log; lead = 0;
        printf("The producer's database fails over to a standby that has not got the last commits.\n");
        claim((arrived & ~committed) == 0, "BROKEN: an event is published whose change is lost\n") }
#else
    :: d_step { old_inbox != inbox || old_parked != parked || old_deferred != deferred ->
        old_inbox = inbox; old_parked = parked; old_deferred = deferred;
        for (i : 0 .. AGGREGATES - 1) { old_known[i] = known[i] }; i = 0 }
    :: d_step { faults && (old_inbox != inbox || old_parked != parked || old_deferred != deferred) -> faults--;
        inbox = old_inbox; parked = old_parked; deferred = old_deferred;
        for (i : 0 .. AGGREGATES - 1) { known[i] = old_known[i] }; i = 0;
        printf("The consumer's database fails over to a standby that has not got the last commits.\n") }
#endif
    od
}
#endif

/* When nobody can do anything any more. That this comes is checked as well: no run has a cycle. */
proctype Judge() {
end:
    timeout -> claim((committed & ~(inbox | parked | discarded | missed)) == 0,
                     "BROKEN: a committed event is neither done nor parked, and nothing will change that\n")
}

init {
    byte i;
    atomic {
        for (i : 0 .. AGGREGATES - 1) { run Producer(i) };
        for (i : 0 .. RELAYS - 1) { run Relay(i) };
        for (i : 0 .. CONSUMERS - 1) { run Consumer(i) };
        run Network(); run Releaser(); run Operator(); run Deployment(); run Judge();
#if WORLD == LOSE_ORIGIN || WORLD == LOSE_TARGET
        run Standby();
#endif
        i = 0
    }
}
