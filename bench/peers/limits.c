/* What the hardware and the kernel allow: the yardsticks of bench/peers/run.
 *
 *   limits serve PORT DIR             sends every file of DIR, in order, by sendfile(2) to whoever says "go"
 *   limits drop PORT                  connects; at a line on stdin says "go", receives into one buffer, drops
 *   limits splice SRC DST             copies every file of SRC through a 1 MiB pipe
 *   limits copy SRC DST               the same by read(2) and write(2), 1 MiB at a time
 *   limits durable SRC DST            the same, and fsync(2), and rename(2): the plain way to store
 *   limits relay SRC DST              until killed: copies every file that is closed in SRC to DST, read(2) and write(2), rename(2)
 *   limits memcpy                     memcpy(3), beyond every cache
 *   limits live SRC DST N SIZE HZ KEEP  N files of SIZE bytes at HZ into SRC; when does each appear in DST?
 *   limits make DIR N SIZE EACH       N files of SIZE bytes, EACH to a directory of DIR; each begins with its number
 *
 * Each but `make` prints one line of JSON. Files are removed from both ends of `live` when KEEP more have been written, so that the
 * memory that is written stays warm.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (1 << 20)

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void check(int ok, const char *what) {
    if (!ok) err(1, "%s", what);
}

/* Names of the regular files in `dir`, in order. */
static char **list(const char *dir, size_t *count) {
    struct dirent **entries;
    int found = scandir(dir, &entries, NULL, alphasort);
    check(found >= 0, dir);
    char **names = calloc(found + 1, sizeof *names);
    *count = 0;
    for (int i = 0; i < found; i++)
        if (entries[i]->d_name[0] != '.') names[(*count)++] = strdup(entries[i]->d_name);
    return names;
}

static int open_in(const char *dir, const char *name, int flags) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, flags | O_CLOEXEC, 0644);
    check(fd >= 0, path);
    return fd;
}

static off_t size_of(int fd) {
    struct stat found;
    check(fstat(fd, &found) == 0, "fstat");
    return found.st_size;
}

static struct sockaddr_in loopback(const char *port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return at;
}

static void serve(const char *port, const char *dir) {
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = loopback(port);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    check(bind(listener, (void *)&at, sizeof at) == 0, "bind");
    check(listen(listener, 1) == 0, "listen");
    int peer = accept(listener, NULL, NULL);
    check(peer >= 0, "accept");
    char go;
    check(read(peer, &go, 1) == 1, "read go");
    size_t count;
    char **names = list(dir, &count);
    for (size_t i = 0; i < count; i++) {
        int fd = open_in(dir, names[i], O_RDONLY);
        for (off_t left = size_of(fd); left > 0;) {
            ssize_t sent = sendfile(peer, fd, NULL, left);
            check(sent > 0, "sendfile");
            left -= sent;
        }
        close(fd);
    }
}

static void drop(const char *port) {
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = loopback(port);
    while (connect(sock, (void *)&at, sizeof at) != 0) {
        check(errno == ECONNREFUSED, "connect");
        close(sock);
        usleep(10000);
        sock = socket(AF_INET, SOCK_STREAM, 0);
    }
    char *buffer = malloc(CHUNK);
    memset(buffer, 1, CHUNK);
    printf("ready\n");
    fflush(stdout);
    check(getchar() != EOF, "stdin");
    int64_t begun = now_ns(), bytes = 0;
    check(write(sock, "g", 1) == 1, "write go");
    for (ssize_t got; (got = recv(sock, buffer, CHUNK, 0)) != 0; bytes += got) check(got > 0, "recv");
    printf("{\"seconds\": %.6f, \"bytes\": %ld}\n", (now_ns() - begun) / 1e9, (long)bytes);
}

static void copy_splice(int in, int out, int64_t left) {
    static int ends[2] = {-1, -1};
    if (ends[0] < 0) {
        check(pipe(ends) == 0, "pipe");
        fcntl(ends[0], F_SETPIPE_SZ, CHUNK);
    }
    while (left > 0) {
        ssize_t in_pipe = splice(in, NULL, ends[1], NULL, left, SPLICE_F_MOVE);
        check(in_pipe > 0, "splice in");
        for (left -= in_pipe; in_pipe > 0;) {
            ssize_t done = splice(ends[0], NULL, out, NULL, in_pipe, SPLICE_F_MOVE);
            check(done > 0, "splice out");
            in_pipe -= done;
        }
    }
}

static void copy_buffer(int in, int out, int64_t left) {
    static char *buffer;
    if (!buffer) buffer = aligned_alloc(4096, CHUNK);
    while (left > 0) {
        ssize_t got = read(in, buffer, CHUNK);
        check(got > 0, "read");
        check(write(out, buffer, got) == got, "write");
        left -= got;
    }
}

static void copy(const char *how, const char *from, const char *to) {
    int durable = !strcmp(how, "durable");
    void (*one)(int, int, int64_t) = strcmp(how, "splice") ? copy_buffer : copy_splice;
    size_t count;
    char **names = list(from, &count);
    int dir = open(to, O_DIRECTORY | O_RDONLY);
    check(dir >= 0, to);
    int64_t begun = now_ns(), bytes = 0;
    for (size_t i = 0; i < count; i++) {
        int in = open_in(from, names[i], O_RDONLY);
        int out = open_in(to, durable ? ".temp" : names[i], O_WRONLY | O_CREAT | O_EXCL);
        off_t size = size_of(in);
        if (!durable) check(ftruncate(out, size) == 0, "ftruncate");
        one(in, out, size);
        if (durable) {
            check(fsync(out) == 0, "fsync");
            check(renameat(dir, ".temp", dir, names[i]) == 0, "rename");
        }
        close(in);
        close(out);
        bytes += size;
    }
    if (durable) check(fsync(dir) == 0, "fsync directory");
    printf("{\"seconds\": %.6f, \"bytes\": %ld}\n", (now_ns() - begun) / 1e9, (long)bytes);
}

/* The plainest way to do live what ppu-uringd does, on one machine, without a network and without comparing anything. */
static void relay(const char *from, const char *to) {
    int watch = inotify_init1(IN_CLOEXEC), dir = open(to, O_DIRECTORY | O_RDONLY);
    check(dir >= 0, to);
    check(inotify_add_watch(watch, from, IN_CLOSE_WRITE) >= 0, from);
    printf("ready\n");
    fflush(stdout);
    char events[65536] __attribute__((aligned(8)));
    for (;;) {
        ssize_t got = read(watch, events, sizeof events);
        check(got > 0, "inotify");
        for (ssize_t o = 0; o < got;) {
            struct inotify_event *event = (void *)(events + o);
            o += sizeof *event + event->len;
            if (!event->len) continue;
            int in = open_in(from, event->name, O_RDONLY), out = open_in(to, ".temp", O_WRONLY | O_CREAT | O_EXCL);
            off_t size = size_of(in);
            check(ftruncate(out, size) == 0, "ftruncate");
            copy_buffer(in, out, size);
            check(renameat(dir, ".temp", dir, event->name) == 0, "rename");
            close(in);
            close(out);
        }
    }
}

static void copy_memory(void) {
    size_t size = 256 << 20;
    char *from = malloc(size), *to = malloc(size);
    memset(from, 1, size);
    memset(to, 2, size);
    int64_t begun = now_ns();
    for (int i = 0; i < 8; i++) {
        memcpy(to, from, size);
        __asm__ volatile("" ::"r"(to) : "memory");
    }
    printf("{\"seconds\": %.6f, \"bytes\": %ld}\n", (now_ns() - begun) / 1e9, 8 * (long)size);
}

static void make(const char *dir, int count, size_t size, int each) {
    if (count < 1 || size < sizeof(int) || each < 1) errx(2, "make: bad numbers");
    char path[4096], *buffer = calloc(1, size);
    check(mkdir(dir, 0755) == 0, dir);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%04d", dir, i / each);
        if (i % each == 0) check(mkdir(path, 0755) == 0, path);
        snprintf(path + strlen(path), sizeof path - strlen(path), "/image_%07d.cbf", i);
        memcpy(buffer, &i, sizeof i);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
        check(fd >= 0, path);
        check(write(fd, buffer, size) == (ssize_t)size, path);
        close(fd);
    }
}

/* live: one thread writes, one watches. */
#define LIVE_MAX 100000
static const char *live_from, *live_to;
static int live_count, live_hz, live_keep;
static size_t live_size;
static _Atomic int64_t closed_ns[LIVE_MAX], visible_ns[LIVE_MAX];
static _Atomic int live_done;

static void live_name(char *path, size_t size, const char *dir, int number) {
    snprintf(path, size, "%s/live_%d_%06d.cbf", dir, (int)getpid(), number);
}

/* Its number, if that is the whole name of one of ours: a temporary name that begins like it is none. Else -1. */
static int live_number(const char *name) {
    int run, number, length = 0;
    if (sscanf(name, "live_%d_%d.cbf%n", &run, &number, &length) != 2 || !length || name[length]) return -1;
    return run == getpid() && number >= 0 && number < live_count ? number : -1;
}

static void *live_write(void *unused) {
    (void)unused;
    char path[4096], *buffer = malloc(live_size);
    for (size_t i = 0; i < live_size; i++) buffer[i] = (char)(i * 2654435761u >> 13);
    int64_t begun = now_ns();
    for (int i = 0; i < live_count; i++) {
        int64_t due = begun + i * 1000000000LL / live_hz, wait = due - now_ns();
        if (wait > 0) nanosleep(&(struct timespec){.tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000}, NULL);
        memcpy(buffer, &i, sizeof i);
        live_name(path, sizeof path, live_from, i);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
        check(fd >= 0, path);
        check(write(fd, buffer, live_size) == (ssize_t)live_size, "write");
        int64_t at = now_ns();
        close(fd);
        closed_ns[i] = at;
        int old = i - live_keep;
        if (old >= 0 && visible_ns[old]) {
            live_name(path, sizeof path, live_to, old);
            unlink(path);
            live_name(path, sizeof path, live_from, old);
            unlink(path);
        }
    }
    live_done = 1;
    return NULL;
}

static void live(void) {
    int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), seen = 0;
    check(inotify_add_watch(watch, live_to, IN_MOVED_TO | IN_CREATE) >= 0, live_to);
    pthread_t writer;
    check(pthread_create(&writer, NULL, live_write, NULL) == 0, "thread");
    /* In real time: else what is measured is also how long the clock waits for its turn. */
    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 2});
    char events[65536] __attribute__((aligned(8)));
    int64_t patience = 0;
    while (seen < live_count) {
        struct pollfd wait = {.fd = watch, .events = POLLIN};
        poll(&wait, 1, 100);
        int64_t at = now_ns();
        if (live_done && !patience) patience = at + 10000000000LL;
        if (patience && at > patience) break;
        ssize_t got = read(watch, events, sizeof events);
        for (ssize_t o = 0; got > 0 && o < got;) {
            struct inotify_event *event = (void *)(events + o);
            int number = event->len ? live_number(event->name) : -1;
            if (number >= 0 && !visible_ns[number]) {
                visible_ns[number] = at;
                seen++;
            }
            o += sizeof *event + event->len;
        }
    }
    pthread_join(writer, NULL);
    printf("{\"missing\": %d, \"micros\": [", live_count - seen);
    const char *comma = "";
    for (int i = 0; i < live_count; i++)
        if (visible_ns[i]) {
            printf("%s%.1f", comma, (visible_ns[i] - closed_ns[i]) / 1e3);
            comma = ", ";
        }
    printf("]}\n");
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "serve") && argc == 4) serve(argv[2], argv[3]);
    else if (!strcmp(what, "drop") && argc == 3) drop(argv[2]);
    else if ((!strcmp(what, "splice") || !strcmp(what, "copy") || !strcmp(what, "durable")) && argc == 4)
        copy(what, argv[2], argv[3]);
    else if (!strcmp(what, "relay") && argc == 4) relay(argv[2], argv[3]);
    else if (!strcmp(what, "memcpy") && argc == 2) copy_memory();
    else if (!strcmp(what, "make") && argc == 6) make(argv[2], atoi(argv[3]), atol(argv[4]), atoi(argv[5]));
    else if (!strcmp(what, "live") && argc == 8) {
        live_from = argv[2];
        live_to = argv[3];
        live_count = atoi(argv[4]);
        live_size = atol(argv[5]);
        live_hz = atoi(argv[6]);
        live_keep = atoi(argv[7]);
        if (live_count < 1 || live_count > LIVE_MAX || live_size < sizeof(int) || live_hz < 1 || live_keep < 1) errx(2, "live: bad numbers");
        live();
    } else errx(2, "see the head of limits.c");
    return 0;
}
