// What the two C programs have in common.
//
//   publish GROUP PORT TTL RATE N    publishes N messages, RATE a second, and
//                                    says how long it took and the CPU time
//   subscribe GROUP PORT TTL         says "ready", and for each line of its
//                                    input how many messages came, the CPU
//                                    time, and their median and 99 % latency
//
// Times are in nanoseconds. RATE 0 is as fast as it goes.
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define HEAD "{\"n\":1000000,\"at\":"
#define TEXT ",\"text\":\""
#define TAIL "\",\"type\":\"Bench\"}"
#define SIZE 100
#define TIMES 100000

static void check(int ok, const char *what) {
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static int64_t now(clockid_t clock) {
	struct timespec t;
	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t cpu(void) {
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return ((int64_t)u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000 +
		((int64_t)u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000;
}

static char payload[SIZE];

static void new_payload(void) {
	int n = sprintf(payload, HEAD "%019d" TEXT, 0);
	memset(payload + n, 'x', SIZE - n);
	memcpy(payload + SIZE - strlen(TAIL), TAIL, strlen(TAIL));
}

// stamp writes the time into the payload, in 19 digits.
static void stamp(int64_t at) {
	char *p = payload + strlen(HEAD) + 19;
	for (int i = 0; i < 19; i++, at /= 10)
		*--p = '0' + at % 10;
}

// paced publishes n messages at a rate. Up to 2,000 a second each one has its
// time in it.
static void paced(int64_t rate, int64_t n, void (*publish)(void)) {
	new_payload();
	int64_t used = cpu(), begin = now(CLOCK_MONOTONIC), sent = 0;
	while (sent < n) {
		int64_t elapsed = now(CLOCK_MONOTONIC) - begin;
		int64_t due = rate == 0 ? n : (int64_t)((double)elapsed * rate / 1e9) + 1;
		if (due > n)
			due = n;
		if (sent >= due) {
			int64_t wait = rate > 10000 ? 50000 : sent * 1000000000 / rate - elapsed;
			struct timespec t = {0, wait > 0 ? wait : 1};
			nanosleep(&t, NULL);
			continue;
		}
		for (; sent < due; sent++) {
			if (rate > 0 && rate <= 2000)
				stamp(now(CLOCK_REALTIME));
			publish();
		}
	}
	printf("%" PRId64 " %" PRId64 " 0\n", now(CLOCK_MONOTONIC) - begin, cpu() - used);
}

static atomic_llong heard;
static int64_t took[TIMES];
static int times;

// hear notes a message.
static void hear(const char *data, size_t size) {
	if (size == SIZE) {
		int64_t at = 0;
		for (const char *p = data + strlen(HEAD); p < data + strlen(HEAD) + 19; p++)
			at = 10 * at + (*p - '0');
		if (at > 0 && times < TIMES)
			took[times++] = now(CLOCK_REALTIME) - at;
		atomic_fetch_add_explicit(&heard, 1, memory_order_relaxed);
	}
}

static int by_size(const void *a, const void *b) {
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static void *answer(void *unused) {
	char line[100];
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin) != NULL) {
		int n = times;
		qsort(took, n, sizeof *took, by_size);
		printf("%lld %" PRId64 " 0 %" PRId64 " %" PRId64 "\n", (long long)atomic_load(&heard), cpu(),
			n > 0 ? took[n / 2] : 0, n > 0 ? took[n * 99 / 100] : 0);
		fflush(stdout);
	}
	exit(0);
	return unused;
}
