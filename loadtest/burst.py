"""The inner loop of the open-loop client, in machine code: send the requests that are due, receive complete answers.

    clock  (CLOCK_CELLS,) int64    shared by all loads: the cells START to COUNT
    loads  (L, LOAD_CELLS) int64   one row for each load: the cells TOTAL to END
    interval (L,) float64          nanoseconds between two requests of a load
    idle   (L, C) int64            rings of file descriptors without a request under way, of ROOM cells each
    due, odd, load_of (F,) int64   by file descriptor: the time its request was due or -1; 1 if only Python can handle
                                   it; its load
    request (R,) uint8             the requests of all loads, each from BEGIN to END
    latencies (L, most) int64      nanoseconds of successful answers, in order of arrival

In Python a request cost the client some 13 microseconds, two thirds of its core at 50,000/s. After a pause of the
machine it would have caught up more slowly than the server. Here the system calls are the whole cost. Unusual events (a
partial answer, a status other than success, a full socket, an error) are returned to Python with a reason.
"""

import platform
import select
import socket
import time

import numpy as np
from numba import njit, types

START, DEADLINE, EPOLL, FD, COUNT, CLOCK_CELLS = range(6)
TOTAL, SENT, ENDED, ANSWERED, LATE, HEAD, TAIL, ROOM, BEGIN, END, LOAD_CELLS = range(11)
DONE, PART_SENT, ODD_EVENT, ODD_ANSWER = range(4)
EVENTS_MAX = 64
# struct epoll_event is packed on x86-64: <I events> <i fd> and four bytes more.
EVENT_WORDS, FD_WORD = (3, 1) if platform.machine() == "x86_64" else (4, 2)
LATE_NS = 100_000
NS = 1_000_000_000
EPOLLIN = select.EPOLLIN
NO_SIGNAL = int(socket.MSG_NOSIGNAL)
GOOD = np.frombuffer(b"HTTP/1.1 2", np.uint8)
LENGTH = np.frombuffer(b"content-length:", np.uint8)
CR, LF, SPACE, ZERO, NINE, LOWER = 13, 10, 32, 48, 57, 32
MONOTONIC = np.int32(time.CLOCK_MONOTONIC)

_send = types.ExternalFunction("send", types.int64(types.int32, types.uintp, types.uintp, types.int32))
_recv = types.ExternalFunction("recv", types.int64(types.int32, types.uintp, types.uintp, types.int32))
_wait = types.ExternalFunction("epoll_wait", types.int32(types.int32, types.uintp, types.int32, types.int32))
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.uintp))


@njit
def now_of(reading):
    """Return the nanoseconds of the clock that `time.perf_counter_ns` reads; reading (2,) is scratch."""
    _clock_gettime(MONOTONIC, reading.ctypes.data)
    return reading[0] * NS + reading[1]


@njit
def length_at(answer, at, count):
    """Return the value of the Content-Length line that starts at `at`, or -1 for any other line."""
    if at + LENGTH.size >= count:
        return -1
    for j in range(LENGTH.size):
        if answer[at + j] | LOWER != LENGTH[j]:
            return -1
    at += LENGTH.size
    while at < count and answer[at] == SPACE:
        at += 1
    value = 0
    while at < count and ZERO <= answer[at] <= NINE:
        value = value * 10 + answer[at] - ZERO
        at += 1
    return value


@njit
def is_whole(answer, count):
    """Return whether `count` bytes are exactly one successful answer with a declared length."""
    if count <= GOOD.size:
        return False
    for i in range(GOOD.size):
        if answer[i] != GOOD[i]:
            return False
    length = -1
    for i in range(GOOD.size, count - 3):
        if answer[i] == CR and answer[i + 1] == LF:
            if answer[i + 2] == CR and answer[i + 3] == LF:
                return length >= 0 and count == i + 4 + length
            length = max(length, length_at(answer, i + 2, count))
    return False


@njit
def send_due(clock, load, interval, idle, due, request, now):
    """Send the due requests of one load while connections are free; return False if a socket accepted only a part."""
    size = load[END] - load[BEGIN]
    while load[SENT] < load[TOTAL] and load[HEAD] < load[TAIL]:
        at = clock[START] + np.int64(load[SENT] * interval)
        if at > now:
            break
        fd = idle[load[HEAD] % load[ROOM]]
        load[HEAD] += 1
        load[SENT] += 1
        load[LATE] += now - at > LATE_NS
        due[fd] = at
        clock[COUNT] = _send(np.int32(fd), request.ctypes.data + load[BEGIN], size, NO_SIGNAL)
        if clock[COUNT] != size:
            clock[FD] = fd
            return False
    return True


@njit
def is_over(clock, loads, now):
    """Return whether everything is answered, or the time to wait for it is over."""
    if now >= clock[DEADLINE]:
        return True
    for load in loads:
        if load[ENDED] < load[TOTAL]:
            return False
    return True


@njit
def burst(clock, loads, interval, idle, due, odd, load_of, request, answer, latencies):
    """Run until all is answered, the deadline passes, or something unusual happens; return which."""
    reading, events = np.empty(2, np.int64), np.empty(EVENTS_MAX * EVENT_WORDS, np.int32)
    while True:
        now = now_of(reading)
        if is_over(clock, loads, now):
            return DONE
        for i in range(len(loads)):
            if not send_due(clock, loads[i], interval[i], idle[i], due, request, now):
                return PART_SENT
        count = _wait(np.int32(clock[EPOLL]), events.ctypes.data, EVENTS_MAX, 0)
        for i in range(count):
            fd = events[i * EVENT_WORDS + FD_WORD]
            clock[FD] = fd
            if events[i * EVENT_WORDS] != EPOLLIN or odd[fd]:
                clock[COUNT] = events[i * EVENT_WORDS]
                return ODD_EVENT
            clock[COUNT] = _recv(np.int32(fd), answer.ctypes.data, answer.size, 0)
            if not is_whole(answer, clock[COUNT]):
                return ODD_ANSWER
            at = load_of[fd]
            load = loads[at]
            latencies[at, load[ANSWERED]] = now_of(reading) - due[fd]
            load[ANSWERED] += 1
            load[ENDED] += 1
            due[fd] = -1
            idle[at, load[TAIL] % load[ROOM]] = fd
            load[TAIL] += 1
