// A loop of sendto, and one of recv, with the payload alone.
#include "bench.h"
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

static int fd;
static struct sockaddr_in to;

static void publish(void) {
	check(sendto(fd, payload, SIZE, 0, (struct sockaddr *)&to, sizeof to) == SIZE, "sendto");
}

int main(int argc, char **argv) {
	check(argc >= 5, "arguments");
	to.sin_family = AF_INET;
	to.sin_addr.s_addr = inet_addr(argv[2]);
	to.sin_port = htons(atoi(argv[3]));
	int ttl = atoi(argv[4]), one = 1, room = 4 << 20;
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	check(fd >= 0, "socket");
	if (strcmp(argv[1], "publish") == 0) {
		check(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &ttl, sizeof ttl) == 0, "IP_MULTICAST_TTL");
		paced(atoll(argv[5]), atoll(argv[6]), publish);
		return 0;
	}
	check(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0, "SO_REUSEADDR");
	check(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room) == 0, "SO_RCVBUF");
	check(bind(fd, (struct sockaddr *)&to, sizeof to) == 0, "bind");
	struct ip_mreq group = {to.sin_addr, {INADDR_ANY}};
	check(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group) == 0, "IP_ADD_MEMBERSHIP");
	pthread_t thread;
	check(pthread_create(&thread, NULL, answer, NULL) == 0, "pthread_create");
	for (char buf[65536];;) {
		ssize_t n = recv(fd, buf, sizeof buf, 0);
		check(n >= 0, "recv");
		hear(buf, n);
	}
}
