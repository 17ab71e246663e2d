/* A server that takes its socket as sd_listen_fds(3) has it, answers one
 * client after the other, and ends on SIGTERM when it has none. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char answer[] =
	"HTTP/1.1 200 OK\r\nX-Version: " VERSION "\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";

static volatile sig_atomic_t leave;

static void on_sigterm(int sig) { leave = 1; }

/* The socket, whose number is the first after stderr. */
static int listener(void) {
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	if (!pid || !count || atol(pid) != (long)getpid() || atoi(count) != 1) {
		fprintf(stderr, "got no socket, or more than one\n");
		exit(1);
	}
	return 3;
}

static void serve(int client) {
	char request[4096];
	size_t have = 0;
	while (have < sizeof request - 1) {
		ssize_t n = read(client, request + have, sizeof request - 1 - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		request[have += n] = 0;
		if (strstr(request, "\r\n\r\n")) {
			send(client, answer, sizeof answer - 1, MSG_NOSIGNAL);
			return;
		}
	}
}

int main(void) {
	int fd = listener();
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); /* the other generation may be faster */
	sigset_t block, wait;
	struct sigaction act = {.sa_handler = on_sigterm};
	sigemptyset(&block);
	sigaddset(&block, SIGTERM);
	sigprocmask(SIG_BLOCK, &block, &wait); /* it comes while we wait, and at no other time */
	sigaction(SIGTERM, &act, NULL);
	while (!leave) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (ppoll(&p, 1, NULL, &wait) != 1)
			continue;
		int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (client < 0)
			continue;
		serve(client);
		shutdown(client, SHUT_WR);
		close(client);
	}
	return 0;
}
