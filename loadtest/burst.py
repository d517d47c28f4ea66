"""The open-loop client's inner loop in machine code: send what is due of each load, take the whole answers that come.

    clock  (CLOCK_CELLS,) int64    what all loads share: the cells START to COUNT
    loads  (L, LOAD_CELLS) int64   one row for each load: the cells TOTAL to END
    interval (L,) float64          nanoseconds between two requests of a load
    idle   (L, C) int64            rings of file descriptors without a request under way, of ROOM cells each
    due, odd, load_of (F,) int64   by file descriptor: when its request was due or -1, 1 where only Python knows what to
                                   do with it, and its load
    request (R,) uint8             the requests of all loads, each from BEGIN to END
    latencies (L, most) int64      nanoseconds of good answers, written in order

In Python a request cost the client some 13 microseconds, at 50,000/s two thirds of its core, so that after a pause of
the machine it would catch up more slowly than the server does. Here it is the system calls alone. Whatever is unusual
(a part of an answer, a status that is no success, a full socket, an error) is handed back to Python by the returned
reason.
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
    """Nanoseconds of the clock that `time.perf_counter_ns` reads; reading (2,) is scratch."""
    _clock_gettime(MONOTONIC, reading.ctypes.data)
    return reading[0] * NS + reading[1]


@njit
def length_at(answer, at, count):
    """The value of a Content-Length line that begins at `at`, or -1 where another line does."""
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
    """Whether `count` bytes are one answer of success from its first byte to its last, of a length that it tells."""
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
    """Send what is due of one load, as far as its connections are free; False where a socket took a part only."""
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
    """Whether everything is answered, or waiting for it has an end."""
    if now >= clock[DEADLINE]:
        return True
    for load in loads:
        if load[ENDED] < load[TOTAL]:
            return False
    return True


@njit
def burst(clock, loads, interval, idle, due, odd, load_of, request, answer, latencies):
    """Go on until all is answered, the deadline is past, or something is unusual; returns which."""
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
