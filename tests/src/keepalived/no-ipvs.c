/* keepalived's checkers, alone: loaded before libnl, this takes the place of the kernel's IPVS, which build machines lack. Nothing
 * is forwarded; whoever asks for a service or a server gets it. What the checkers find out is theirs.
 *
 * keepalived speaks to IPVS by generic netlink, and only to IPVS through these functions of libnl; each call ends with an
 * acknowledgement, which keepalived's own handlers are given here. SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <errno.h>
#include <string.h>

struct nl_sock;
struct nl_msg;
typedef int handler(struct nl_msg *, void *);

/* enum nl_cb_type of libnl */
enum { FINISH = 1, ACK = 4, KINDS = 16 };

static struct {
    handler *call;
    void *argument;
} handlers[KINDS];

int genl_ctrl_resolve(struct nl_sock *socket, const char *name)
{
    (void)socket;
    return strcmp(name, "IPVS") ? -ENOENT : 0x40;
}

int nl_socket_modify_cb(struct nl_sock *socket, unsigned type, int kind, handler *call, void *argument)
{
    (void)socket;
    (void)kind;
    if (type >= KINDS)
        return -ERANGE;
    handlers[type].call = call;
    handlers[type].argument = argument;
    return 0;
}

int nl_send_auto(struct nl_sock *socket, struct nl_msg *message)
{
    (void)socket;
    (void)message;
    return 1;
}

int nl_recvmsgs_default(struct nl_sock *socket)
{
    (void)socket;
    for (int type = FINISH; type <= ACK; type += ACK - FINISH)
        if (handlers[type].call)
            handlers[type].call(0, handlers[type].argument);
    return 0;
}
