/* A Direct3D 12 device by the system's own libvkd3d, for programs under Wine. A library of Wine's (winegcc builds it), so that one
   side is Windows' and the other Linux'.

   Wine brings a vkd3d of its own, which knows too little of the shaders that DirectML uses. libvkd3d 2.1 knows enough. It is a Linux
   library: its objects have functions in Windows' calling convention, and ask for threads and events by these callbacks. */

#include <stdlib.h>
#include <string.h>
#define VK_NO_PROTOTYPES
#define INITGUID
#include <vkd3d_windows.h>
#include <vkd3d_d3d12.h>
#include <vkd3d.h>

#define WINDOWS __attribute__((ms_abi))

extern int WINDOWS SetEvent(void *event);
extern void *WINDOWS CreateThread(void *security, size_t stack, unsigned(WINDOWS *start)(void *), void *argument, unsigned flags, unsigned *id);
extern unsigned WINDOWS WaitForSingleObject(void *object, unsigned milliseconds);
extern int WINDOWS CloseHandle(void *object);

static HRESULT signal_event(HANDLE event) {
    return SetEvent(event) ? S_OK : E_FAIL;
}

/* Its threads must be Windows' threads: they call back into Windows' functions. */
struct work {
    PFN_vkd3d_thread run;
    void *argument;
};

static unsigned WINDOWS start(void *given) {
    struct work work = *(struct work *)given;
    free(given);
    work.run(work.argument);
    return 0;
}

static void *create_thread(PFN_vkd3d_thread run, void *argument) {
    struct work *work = malloc(sizeof *work);
    if (!work)
        return NULL;
    *work = (struct work){run, argument};
    return CreateThread(NULL, 0, start, work, 0, NULL);
}

static HRESULT join_thread(void *thread) {
    const unsigned forever = ~0u;
    WaitForSingleObject(thread, forever);
    CloseHandle(thread);
    return S_OK;
}

/* The number that names an adapter, by which DirectML finds the one that a device belongs to: IDXGIAdapter::GetDesc is the ninth of
   its functions, and the number lies behind the name, four numbers and three sizes. */
static void read_luid(IUnknown *given, LUID *luid) {
    static const GUID adapter_id = {0x2411e7e1, 0x12ac, 0x4ccf, {0xbd, 0x14, 0x97, 0x98, 0xe8, 0x53, 0x4d, 0xc0}};
    enum { QUERY_INTERFACE = 0, RELEASE = 2, GET_DESC = 8, PLACE = 128 * 2 + 4 * 4 + 3 * 8, SIZE = PLACE + 8 };
    void *adapter = NULL;
    char description[SIZE + 64] = {0};
    HRESULT(WINDOWS * query)(void *, const GUID *, void **) = (*(void ***)given)[QUERY_INTERFACE];
    if (query(given, &adapter_id, &adapter) != S_OK || !adapter)
        return;
    HRESULT(WINDOWS * describe)(void *, void *) = (*(void ***)adapter)[GET_DESC];
    unsigned(WINDOWS * release)(void *) = (*(void ***)adapter)[RELEASE];
    if (describe(adapter, description) == S_OK)
        memcpy(luid, description + PLACE, sizeof *luid);
    release(adapter);
}

HRESULT WINDOWS bridge_create_device(IUnknown *adapter, D3D_FEATURE_LEVEL level, REFIID wanted, void **device) {
    struct vkd3d_instance_create_info instance = {
        .type = VKD3D_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pfn_signal_event = signal_event,
        .pfn_create_thread = create_thread,
        .pfn_join_thread = join_thread,
        .wchar_size = 2,
    };
    struct vkd3d_device_create_info info = {
        .type = VKD3D_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .minimum_feature_level = level,
        .instance_create_info = &instance,
    };
    if (adapter) {
        read_luid(adapter, &info.adapter_luid);
        info.parent = adapter;
    }
    /* The program replaces two of the device's functions (ask.c); libvkd3d keeps them where nothing may be written. */
    static ID3D12Device9Vtbl functions;
    HRESULT result = vkd3d_create_device(&info, wanted, device);
    if (result == S_OK && device && *device) {
        memcpy(&functions, *(void **)*device, sizeof functions);
        *(void **)*device = &functions;
    }
    return result;
}
