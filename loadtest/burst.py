"""The open-loop client's inner loop in machine code: send what is due, take answers that look like the one before.

    state (CELLS,) int64   the cells below; idle (C,) a ring of file descriptors without a request under way
    due, size, odd (F,)    by file descriptor: when its request was due, the bytes of its last whole answer, and 1 where
                           only Python knows what to do with it
    latencies (total,)     nanoseconds of good answers, written in order

In Python a request cost the client some 13 microseconds, at 50,000/s two thirds of its core, so that after a pause of
the machine it would catch up more slowly than the server does. Here it is the system calls alone. Whatever is unusual
(a part of an answer, another length or status, a full socket, an error) is handed back to Python by the returned
reason.
"""

import platform
import select
import socket
import time

import numpy as np
from numba import njit, types

START, TOTAL, DEADLINE, SENT, ENDED, ANSWERED, LATE, HEAD, TAIL, EPOLL, FD, COUNT, CELLS = range(13)
DONE, PART_SENT, ODD_EVENT, ODD_ANSWER = range(4)
EVENTS_MAX = 64
# struct epoll_event is packed on x86-64: <I events> <i fd> and four bytes more.
EVENT_WORDS, FD_WORD = (3, 1) if platform.machine() == "x86_64" else (4, 2)
LATE_NS = 100_000
NS = 1_000_000_000
EPOLLIN = select.EPOLLIN
NO_SIGNAL = int(socket.MSG_NOSIGNAL)
GOOD = np.frombuffer(b"HTTP/1.1 200", np.uint8)
MONOTONIC = np.int32(time.CLOCK_MONOTONIC)

_send = types.ExternalFunction("send", types.int64(types.int32, types.uintp, types.uintp, types.int32))
_recv = types.ExternalFunction("recv", types.int64(types.int32, types.uintp, types.uintp, types.int32))
_wait = types.ExternalFunction("epoll_wait", types.int32(types.int32, types.uintp, types.int32, types.int32))
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.uintp))


@njit
def clock(reading):
    """Nanoseconds of the clock that `time.perf_counter_ns` reads; reading (2,) is scratch."""
    _clock_gettime(MONOTONIC, reading.ctypes.data)
    return reading[0] * NS + reading[1]


@njit
def is_good(answer):
    """Whether an answer begins as one of status 200 does."""
    for i in range(GOOD.size):
        if answer[i] != GOOD[i]:
            return False
    return True


@njit
def burst(state, interval, idle, due, size, odd, request, answer, latencies):
    """Go on until all is answered, the deadline is past, or something is unusual; returns which."""
    reading, events = np.empty(2, np.int64), np.empty(EVENTS_MAX * EVENT_WORDS, np.int32)
    while True:
        now = clock(reading)
        if now >= state[DEADLINE] or state[ENDED] >= state[TOTAL]:
            return DONE
        while state[SENT] < state[TOTAL] and state[HEAD] < state[TAIL]:
            at = state[START] + np.int64(state[SENT] * interval)
            if at > now:
                break
            fd = idle[state[HEAD] % idle.size]
            state[HEAD] += 1
            state[SENT] += 1
            state[LATE] += now - at > LATE_NS
            due[fd] = at
            state[COUNT] = _send(np.int32(fd), request.ctypes.data, request.size, NO_SIGNAL)
            if state[COUNT] != request.size:
                state[FD] = fd
                return PART_SENT
        count = _wait(np.int32(state[EPOLL]), events.ctypes.data, EVENTS_MAX, 0)
        for i in range(count):
            fd = events[i * EVENT_WORDS + FD_WORD]
            state[FD] = fd
            if events[i * EVENT_WORDS] != EPOLLIN or odd[fd]:
                state[COUNT] = events[i * EVENT_WORDS]
                return ODD_EVENT
            state[COUNT] = _recv(np.int32(fd), answer.ctypes.data, answer.size, 0)
            if state[COUNT] != size[fd] or not is_good(answer):
                return ODD_ANSWER
            latencies[state[ANSWERED]] = clock(reading) - due[fd]
            state[ANSWERED] += 1
            state[ENDED] += 1
            due[fd] = -1
            idle[state[TAIL] % idle.size] = fd
            state[TAIL] += 1
