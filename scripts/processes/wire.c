// A cable between two network namespaces: one TUN device in each, with a rate and a delay. It stands in for netem, which many kernels
// lack.
//   cc -O2 -o wire wire.c && ./wire NAMESPACE NAMESPACE MEGABITS_PER_SECOND DELAY_MILLISECONDS
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { PACKET = 9216, QUEUE = 64 };

// Packets on their way in one direction.
struct direction {
    int from, to;
    double free_at;  // when the last packet has left the sender
    int head, count;
    struct { double due; long length; char bytes[PACKET]; } queue[QUEUE];
};

static struct direction ways[2];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

// A TUN device named `wire` in a namespace.
static int device(const char *name) {
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", name);
    int space = open(path, O_RDONLY);
    if (space < 0 || setns(space, CLONE_NEWNET) < 0) { perror(path); exit(1); }
    close(space);
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strcpy(request.ifr_name, "wire");
    if (tun < 0 || ioctl(tun, TUNSETIFF, &request) < 0) { perror("/dev/net/tun"); exit(1); }
    return tun;
}

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "usage: wire NAMESPACE NAMESPACE MBIT_PER_S DELAY_MS\n"); return 2; }
    int a = device(argv[1]), b = device(argv[2]);
    double seconds_per_byte = 8 / (1e6 * atof(argv[3])), delay = 1e-3 * atof(argv[4]);
    ways[0] = (struct direction){.from = a, .to = b};
    ways[1] = (struct direction){.from = b, .to = a};
    puts("ready");
    fflush(stdout);
    for (;;) {
        double next = now() + 1;
        struct pollfd readable[2];
        for (int i = 0; i < 2; i++) {
            struct direction *way = &ways[i];
            while (way->count < QUEUE) {
                int last = (way->head + way->count) % QUEUE;
                long length = read(way->from, way->queue[last].bytes, PACKET);
                if (length <= 0) break;
                double begin = way->free_at > now() ? way->free_at : now();
                way->free_at = begin + length * seconds_per_byte;
                way->queue[last].length = length;
                way->queue[last].due = way->free_at + delay;
                way->count++;
            }
            while (way->count > 0 && way->queue[way->head].due <= now()) {
                // A packet that the other side cannot take is lost.
                if (write(way->to, way->queue[way->head].bytes, way->queue[way->head].length) < 0) {}
                way->head = (way->head + 1) % QUEUE;
                way->count--;
            }
            if (way->count > 0 && way->queue[way->head].due < next) next = way->queue[way->head].due;
            readable[i] = (struct pollfd){.fd = way->count < QUEUE ? way->from : -1, .events = POLLIN};
        }
        double wait = next - now();
        struct timespec timeout = {.tv_nsec = wait > 0 ? (long)(999999999 * (wait > 1 ? 1 : wait)) : 0};
        ppoll(readable, 2, &timeout, NULL);
    }
}
