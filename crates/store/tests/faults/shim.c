/* Stands between a process and its disk (LD_PRELOAD). Everything that is written to files under $SHIM_FOLDER is also
 * written to $SHIM_LOG, in the order in which it happened, so that a test can make the disks that a power cut could have
 * left. What stands in $SHIM_FAULT (one letter) fails: s = flushes (EIO), n = writes (ENOSPC), w = writes (EIO),
 * r = writes (EROFS), x = now and then a flush (EIO), - = nothing. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define FILES 4096
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *names[FILES]; /* by descriptor: the file's name within the folder */
static int log_fd = -1;
static uint64_t dice = 88172645463325252ull; /* where no $SHIM_SEED is */

static const char *folder(void) { return getenv("SHIM_FOLDER"); }

static char fault(void) {
    const char *file = getenv("SHIM_FAULT");
    char letter = '-';
    if (file) {
        int fd = syscall(SYS_openat, AT_FDCWD, file, O_RDONLY);
        if (fd >= 0) {
            if (syscall(SYS_read, fd, &letter, 1) != 1) letter = '-';
            syscall(SYS_close, fd);
        }
    }
    return letter;
}

static void put(const void *bytes, size_t count) {
    while (count > 0) {
        ssize_t done = syscall(SYS_write, log_fd, bytes, count);
        if (done <= 0) abort();
        bytes = (const char *)bytes + done;
        count -= done;
    }
}

/* An event: what (1 byte), length of the name (1), offset (8), length of the bytes (8), name, bytes. */
static void note(char what, const char *name, uint64_t offset, uint64_t length, const void *bytes) {
    if (log_fd < 0) {
        const char *file = getenv("SHIM_LOG");
        if (!file) return;
        log_fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    }
    unsigned char head[18];
    head[0] = what;
    head[1] = strlen(name);
    memcpy(head + 2, &offset, 8);
    memcpy(head + 10, &length, 8);
    put(head, 18);
    put(name, head[1]);
    if (bytes) put(bytes, length);
}

static const char *name_of(int fd) { return fd >= 0 && fd < FILES ? names[fd] : NULL; }

static void opened(int fd, const char *path) {
    const char *within = folder();
    if (fd < 0 || fd >= FILES || !within) return;
    size_t length = strlen(within);
    const char *name = strncmp(path, within, length) == 0 && path[length] == '/' ? path + length + 1 : NULL;
    /* The index of the log is made anew after a crash. */
    if (!name || strstr(name, "-shm")) return;
    names[fd] = strdup(name);
}


static int open_any(const char *path, int flags, mode_t mode) {
    int fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    pthread_mutex_lock(&lock);
    opened(fd, path);
    pthread_mutex_unlock(&lock);
    return fd;
}
static mode_t mode_of(int flags, va_list list) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; }
int open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_of(flags, list);
    va_end(list);
    return open_any(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_of(flags, list);
    va_end(list);
    return open_any(path, flags | O_LARGEFILE, mode);
}

int close(int fd) {
    pthread_mutex_lock(&lock);
    if (name_of(fd)) {
        free(names[fd]);
        names[fd] = NULL;
    }
    int done = syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return done;
}

static ssize_t write_at(int fd, const void *bytes, size_t count, off64_t offset, int placed) {
    const char *name = name_of(fd);
    if (!name) return placed ? syscall(SYS_pwrite64, fd, bytes, count, offset) : syscall(SYS_write, fd, bytes, count);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    char now = strcmp(name, "acks") == 0 ? '-' : fault();
    if (now == 'n' || now == 'w' || now == 'r') {
        errno = now == 'n' ? ENOSPC : now == 'w' ? EIO : EROFS;
    } else {
        if (!placed) offset = lseek(fd, 0, SEEK_END);
        done = syscall(SYS_pwrite64, fd, bytes, count, offset);
        if (!placed && done > 0) lseek(fd, offset + done, SEEK_SET);
        if (done > 0) note('w', name, offset, done, bytes);
    }
    pthread_mutex_unlock(&lock);
    return done;
}
ssize_t write(int fd, const void *bytes, size_t count) { return write_at(fd, bytes, count, 0, 0); }
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) { return write_at(fd, bytes, count, offset, 1); }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) { return write_at(fd, bytes, count, offset, 1); }

static int cut(int fd, off64_t length) {
    const char *name = name_of(fd);
    if (!name) return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    int done = syscall(SYS_ftruncate, fd, length);
    if (done == 0) note('t', name, length, 0, NULL);
    pthread_mutex_unlock(&lock);
    return done;
}
int ftruncate(int fd, off_t length) { return cut(fd, length); }
int ftruncate64(int fd, off64_t length) { return cut(fd, length); }

static int flush(int fd, long call) {
    const char *name = name_of(fd);
    if (!name) return syscall(call, fd);
    pthread_mutex_lock(&lock);
    char now = fault();
    static int seeded;
    if (!seeded++ && getenv("SHIM_SEED")) dice ^= strtoull(getenv("SHIM_SEED"), NULL, 10) * 2654435761u;
    dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
    int done = -1;
    if (now == 's' || (now == 'x' && dice % 8 == 0)) {
        errno = EIO;
        note('f', name, 0, 0, NULL);
    } else {
        /* What a power cut leaves is worked out from the log: the machine's own disk need not be waited for. */
        done = getenv("SHIM_QUICK") ? 0 : syscall(call, fd);
        if (done == 0) note('s', name, 0, 0, NULL);
    }
    pthread_mutex_unlock(&lock);
    return done;
}
int fsync(int fd) { return flush(fd, SYS_fsync); }
int fdatasync(int fd) { return flush(fd, SYS_fdatasync); }

int unlink(const char *path) {
    const char *within = folder();
    int done = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (done == 0 && within && strncmp(path, within, strlen(within)) == 0 && path[strlen(within)] == '/') {
        const char *name = path + strlen(within) + 1;
        pthread_mutex_lock(&lock);
        if (!strstr(name, "-shm")) note('u', name, 0, 0, NULL);
        pthread_mutex_unlock(&lock);
    }
    return done;
}
