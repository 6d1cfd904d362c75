// LCM, with the payload as its message's data.
#include "bench.h"
#include <lcm/lcm.h>

static lcm_t *lcm;

static void publish(void) {
	check(lcm_publish(lcm, "BENCH", payload, SIZE) == 0, "lcm_publish");
}

static void handle(const lcm_recv_buf_t *in, const char *channel, void *user) {
	(void)channel, (void)user;
	hear(in->data, in->data_size);
}

int main(int argc, char **argv) {
	char url[200];
	check(argc >= 5, "arguments");
	snprintf(url, sizeof url, "udpm://%s:%s?ttl=%s&recv_buf_size=4194304", argv[2], argv[3], argv[4]);
	lcm = lcm_create(url);
	check(lcm != NULL, "lcm_create");
	if (strcmp(argv[1], "publish") == 0) {
		paced(atoll(argv[5]), atoll(argv[6]), publish);
		return 0;
	}
	lcm_subscription_t *all = lcm_subscribe(lcm, "BENCH", handle, NULL);
	check(lcm_subscription_set_queue_capacity(all, 0) == 0, "lcm_subscription_set_queue_capacity"); // no bound
	pthread_t thread;
	check(pthread_create(&thread, NULL, answer, NULL) == 0, "pthread_create");
	for (;;)
		check(lcm_handle(lcm) == 0, "lcm_handle");
}
