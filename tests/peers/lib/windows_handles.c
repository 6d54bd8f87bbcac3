/*
 * windows_handles PROGRAM.exe: prints how many handles the running process of that name has. Wine 8 answers GetProcessHandleCount() with 0,
 * but knows the list of all handles.
 */
#include <windows.h>

#include <stdio.h>
#include <stdlib.h>
#include <tlhelp32.h>

struct entry {
    ULONG  pid;
    UCHAR  type, flags;
    USHORT value;
    void  *object;
    ULONG  access;
};

struct list {
    ULONG        count;
    struct entry entries[1];
};

enum { SYSTEM_HANDLES = 16, ROOM = 4 << 20 };

typedef LONG(WINAPI *query)(int what, void *answer, ULONG size, ULONG *used);

static DWORD process_of(const char *name)
{
    PROCESSENTRY32 process;
    HANDLE         all = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    BOOL           more;

    process.dwSize = sizeof process;
    for (more = Process32First(all, &process); more; more = Process32Next(all, &process))
        if (lstrcmpiA(process.szExeFile, name) == 0) return process.th32ProcessID;
    return 0;
}

int main(int argc, char **argv)
{
    query        system_query = (query)(void *)GetProcAddress(GetModuleHandleA("ntdll"), "NtQuerySystemInformation");
    struct list *all = (struct list *)malloc(ROOM);
    DWORD        pid = argc == 2 ? process_of(argv[1]) : 0, count = 0;
    ULONG        i;

    if (!pid || !all || system_query(SYSTEM_HANDLES, all, ROOM, NULL) != 0) return fprintf(stderr, "no such process, or no list\n"), 1;
    for (i = 0; i < all->count; i++) count += all->entries[i].pid == pid;
    printf("%lu\n", count);
    return 0;
}
