/* A disk that takes its time: each sync takes SYNC_US microseconds more. For LD_PRELOAD. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static int later(const char *name, int fd)
{
    const char *microseconds = getenv("SYNC_US");
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (microseconds)
        usleep((useconds_t)atoi(microseconds));
    return sync(fd);
}

int fsync(int fd) { return later("fsync", fd); }

int fdatasync(int fd) { return later("fdatasync", fd); }
