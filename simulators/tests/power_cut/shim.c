/* Stands between a program and its files (LD_PRELOAD), for the tests beside it.
 *
 * SHIM_DIR   absolute directory: what is below it is watched
 * SHIM_TRACE file: every change below SHIM_DIR and every write to standard output is written there, in the order in which they happened
 * SHIM_FAULT file: as long as it holds a number, changes below SHIM_DIR fail with this errno; a negative one: each synchronisation takes
 *            so many ms instead
 *
 * A record of the trace: struct head, then `first` bytes, then `second` bytes. replay.rs reads it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 4096

struct head {
    uint64_t what, inode, offset, first, second;
};

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char watched[4096];
static size_t watched_length;
static const char *fault_path;
static int trace = -1;
/* The inode behind each watched descriptor, else 0; and whether it appends. */
static uint64_t inode_of[MAX_FD];
static int appends[MAX_FD];

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name); \
    pthread_once(&once, begin)

static void begin(void) {
    int (*open_real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    const char *dir = getenv("SHIM_DIR"), *path = getenv("SHIM_TRACE");
    fault_path = getenv("SHIM_FAULT");
    if (!dir || !realpath(dir, watched)) return;
    watched_length = strlen(watched);
    if (path) trace = open_real(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(const void *bytes, size_t length) {
    ssize_t (*write_real)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    while (length > 0) {
        ssize_t done = write_real(trace, bytes, length);
        if (done <= 0) abort();
        bytes = (const char *)bytes + done;
        length -= (size_t)done;
    }
}

/* Call with `order` held. Keeps errno. */
static void tell(char what, uint64_t inode, uint64_t offset, const void *first, size_t first_length, const char *second) {
    if (trace < 0) return;
    int before = errno;
    struct head head = {(uint64_t)what, inode, offset, first_length, second ? strlen(second) : 0};
    put(&head, sizeof head);
    put(first, first_length);
    if (second) put(second, head.second);
    errno = before;
}

/* The path as it is from the root, if it is watched. */
static int is_watched(int dir, const char *path, char *full, size_t room) {
    if (!watched_length) return 0;
    if (path[0] == '/') {
        if ((size_t)snprintf(full, room, "%s", path) >= room) return 0;
    } else {
        char link[64], base[4096];
        snprintf(link, sizeof link, dir == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dir);
        ssize_t length = readlink(link, base, sizeof base - 1);
        if (length < 0) return 0;
        base[length] = 0;
        if ((size_t)snprintf(full, room, "%s/%s", base, path) >= room) return 0;
    }
    return strncmp(full, watched, watched_length) == 0 && (full[watched_length] == '/' || full[watched_length] == 0);
}

static uint64_t inode(int fd) {
    return fd >= 0 && fd < MAX_FD ? inode_of[fd] : 0;
}

/* The number that SHIM_FAULT holds; 0: none. */
static int fault(void) {
    if (!fault_path) return 0;
    int before = errno, number = 0;
    FILE *file = fopen(fault_path, "re");
    if (file) {
        if (fscanf(file, "%d", &number) != 1) number = 0;
        fclose(file);
    }
    errno = before;
    return number;
}

#define REFUSE(failed) \
    do { \
        int number = fault(); \
        if (number > 0) { \
            errno = number; \
            return failed; \
        } \
    } while (0)

static int opened(int fd, int existed, int flags, const char *full) {
    struct stat status;
    if (fd < 0 || fd >= MAX_FD || fstat(fd, &status) != 0) return fd;
    inode_of[fd] = status.st_ino;
    appends[fd] = (flags & O_APPEND) != 0;
    if (!existed) tell('C', status.st_ino, 0, full, strlen(full), NULL);
    else if (flags & O_TRUNC) tell('T', status.st_ino, 0, "", 0, NULL);
    return fd;
}

#define OPEN(name, parameters, types, dir, call) \
    int name parameters { \
        REAL(int, #name, types); \
        mode_t mode = 0; \
        if (flags & O_CREAT) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        char full[8192]; \
        if (!is_watched(dir, path, full, sizeof full)) return call; \
        if (flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC)) REFUSE(-1); \
        pthread_mutex_lock(&order); \
        int existed = !(flags & O_CREAT) || access(full, F_OK) == 0; \
        int fd = opened(call, existed, flags, full); \
        pthread_mutex_unlock(&order); \
        return fd; \
    }

#define COMMA ,
OPEN(open, (const char *path, int flags, ...), const char * COMMA int COMMA ..., AT_FDCWD, real(path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), const char * COMMA int COMMA ..., AT_FDCWD, real(path, flags, mode))
OPEN(openat, (int dir, const char *path, int flags, ...), int COMMA const char * COMMA int COMMA ..., dir, real(dir, path, flags, mode))
OPEN(openat64, (int dir, const char *path, int flags, ...), int COMMA const char * COMMA int COMMA ..., dir, real(dir, path, flags, mode))

int close(int fd) {
    REAL(int, "close", int);
    pthread_mutex_lock(&order);
    if (fd >= 0 && fd < MAX_FD) inode_of[fd] = 0;
    int result = real(fd);
    pthread_mutex_unlock(&order);
    return result;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    uint64_t number = inode(fd);
    if (!number && fd != 1) return real(fd, bytes, length);
    if (number) REFUSE(-1);
    pthread_mutex_lock(&order);
    struct stat status = {0};
    off_t at = number ? lseek(fd, 0, SEEK_CUR) : 0;
    if (number && appends[fd] && fstat(fd, &status) == 0) at = status.st_size;
    ssize_t done = real(fd, bytes, length);
    if (done > 0) tell(number ? 'W' : 'A', number, (uint64_t)at, bytes, (size_t)done, NULL);
    pthread_mutex_unlock(&order);
    return done;
}

#define PWRITE(name, offset_type) \
    ssize_t name(int fd, const void *bytes, size_t length, offset_type at) { \
        REAL(ssize_t, #name, int, const void *, size_t, offset_type); \
        uint64_t number = inode(fd); \
        if (!number) return real(fd, bytes, length, at); \
        REFUSE(-1); \
        pthread_mutex_lock(&order); \
        ssize_t done = real(fd, bytes, length, at); \
        if (done > 0) tell('W', number, (uint64_t)at, bytes, (size_t)done, NULL); \
        pthread_mutex_unlock(&order); \
        return done; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define TRUNCATE(name, offset_type) \
    int name(int fd, offset_type length) { \
        REAL(int, #name, int, offset_type); \
        uint64_t number = inode(fd); \
        if (!number) return real(fd, length); \
        REFUSE(-1); \
        pthread_mutex_lock(&order); \
        int result = real(fd, length); \
        if (result == 0) tell('T', number, (uint64_t)length, "", 0, NULL); \
        pthread_mutex_unlock(&order); \
        return result; \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

/* The files of a test need not survive the test: what is synchronised is only written down. */
static int synchronised(int fd, char what) {
    int number = fault();
    if (number > 0) {
        errno = number;
        return -1;
    }
    if (number < 0) {
        struct timespec time = {-number / 1000, -number % 1000 * 1000000L};
        nanosleep(&time, NULL);
    }
    pthread_mutex_lock(&order);
    tell(what, inode(fd), 0, "", 0, NULL);
    pthread_mutex_unlock(&order);
    return 0;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return inode(fd) ? synchronised(fd, 'F') : real(fd);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return inode(fd) ? synchronised(fd, 'D') : real(fd);
}

int sync_file_range(int fd, off64_t from, off64_t length, unsigned int flags) {
    REAL(int, "sync_file_range", int, off64_t, off64_t, unsigned int);
    return inode(fd) ? synchronised(fd, 'G') : real(fd, from, length, flags);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    char full[8192];
    if (!is_watched(AT_FDCWD, path, full, sizeof full)) return real(path, mode);
    REFUSE(-1);
    pthread_mutex_lock(&order);
    int result = real(path, mode);
    struct stat status;
    if (result == 0 && stat(full, &status) == 0) tell('M', status.st_ino, 0, full, strlen(full), NULL);
    pthread_mutex_unlock(&order);
    return result;
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    char full_from[8192], full_to[8192];
    if (!is_watched(AT_FDCWD, from, full_from, sizeof full_from) || !is_watched(AT_FDCWD, to, full_to, sizeof full_to))
        return real(from, to);
    REFUSE(-1);
    pthread_mutex_lock(&order);
    int result = real(from, to);
    if (result == 0) tell('R', 0, 0, full_from, strlen(full_from), full_to);
    pthread_mutex_unlock(&order);
    return result;
}

#define REMOVE(name, parameters, types, dir, call) \
    int name parameters { \
        REAL(int, #name, types); \
        char full[8192]; \
        if (!is_watched(dir, path, full, sizeof full)) return call; \
        REFUSE(-1); \
        pthread_mutex_lock(&order); \
        int result = call; \
        if (result == 0) tell('U', 0, 0, full, strlen(full), NULL); \
        pthread_mutex_unlock(&order); \
        return result; \
    }
REMOVE(unlink, (const char *path), const char *, AT_FDCWD, real(path))
REMOVE(rmdir, (const char *path), const char *, AT_FDCWD, real(path))
REMOVE(unlinkat, (int dir, const char *path, int flags), int COMMA const char * COMMA int, dir, real(dir, path, flags))
