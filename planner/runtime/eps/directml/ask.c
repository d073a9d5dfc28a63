/* Asks the DirectML EP of ONNX Runtime which nodes of a model it takes. A Windows program; on Linux it runs under Wine.

       ask.exe FOLDER

   FOLDER holds onnxruntime.dll and DirectML.dll. The program first says {"onnxruntime": VERSION}. Then it reads a request a line from
   standard input, fields separated by tabs:

       OPTIMIZE   0 or 1: whether onnxruntime may rewrite the graph
       MODEL      an ONNX file
       FOLDER     where the model's external data lies

   and answers each with lines of JSON. A string is what onnxruntime's verbose log says of the placement. It is written as
   it is logged, before any kernel is built, so it is there even when the session fails or crashes afterwards. An object ends
   the answer: {"session": BOOL, "seconds": NUMBER, "error": TEXT}. The program ends with its input. Where a session crashes,
   the program dies with it: whoever asks starts another. */

#define COBJMACROS
#define INITGUID
#include <windows.h>
#include <d3d12.h>
#include <fcntl.h>
#include <io.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- The part of ONNX Runtime's C API that is used here -----------------------------------------------------------------
   The API is a table of functions to which later versions only append (onnxruntime_c_api.h), so that places never change. */

#define API_VERSION 17 /* onnxruntime 1.17: session configuration entries, external data of a model in memory */

typedef struct Env Env;
typedef struct Status Status;
typedef struct Session Session;
typedef struct SessionOptions SessionOptions;
typedef void (*Api[API_VERSION * 16])(void);
typedef struct {
    const Api *(*get_api)(uint32_t version);
    const char *(*version)(void);
} ApiBase;
typedef void (*Logger)(void *context, int severity, const char *category, const char *id, const char *where, const char *message);

enum { VERBOSE = 0, SEQUENTIAL = 0, NO_OPTIMIZATION = 0, ALL_OPTIMIZATIONS = 99 };

static const Api *api;

#define CALL(slot, result, ...) ((result(*)(__VA_ARGS__))(*api)[slot])
#define error_message CALL(2, const char *, const Status *)
#define create_env CALL(4, Status *, Logger, void *, int, const char *, Env **)
#define create_session CALL(8, Status *, Env *, const void *, size_t, const SessionOptions *, Session **)
#define create_options CALL(10, Status *, SessionOptions **)
#define set_execution_mode CALL(13, Status *, SessionOptions *, int)
#define disable_memory_pattern CALL(17, Status *, SessionOptions *)
#define set_log_severity CALL(22, Status *, SessionOptions *, int)
#define set_optimization CALL(23, Status *, SessionOptions *, int)
#define set_threads CALL(24, Status *, SessionOptions *, int)
#define release_status CALL(93, void, Status *)
#define release_session CALL(95, void, Session *)
#define release_options CALL(100, void, SessionOptions *)
#define add_config CALL(130, Status *, SessionOptions *, const char *, const char *)

static Status *(*append_directml)(SessionOptions *options, void *directml, ID3D12CommandQueue *queue);

/* -- What a real GPU says --------------------------------------------------------------------------------------------- */

static HRESULT(WINAPI *check_feature)(ID3D12Device *device, D3D12_FEATURE feature, void *data, UINT size);

/* Every GPU that DirectML supports loads typed views of all formats, and DirectML asks for that before it takes float16.
   Wine 8 says no whatever the device can do. */
static HRESULT WINAPI check_feature_as_gpu(ID3D12Device *device, D3D12_FEATURE feature, void *data, UINT size) {
    HRESULT result = check_feature(device, feature, data, size);
    if (SUCCEEDED(result) && feature == D3D12_FEATURE_D3D12_OPTIONS)
        ((D3D12_FEATURE_DATA_D3D12_OPTIONS *)data)->TypedUAVLoadAdditionalFormats = TRUE;
    return result;
}

/* The driver's own operators. Wine 10 has the call and fails it, which DirectML takes for a broken device. */
static HRESULT WINAPI no_meta_commands(void *device, UINT *count, void *descriptions) {
    (void)device, (void)descriptions;
    if (count)
        *count = 0;
    return S_OK;
}

static void *replace(void **place, void *by) {
    DWORD protection;
    void *before = *place;
    VirtualProtect(place, sizeof *place, PAGE_READWRITE, &protection);
    *place = by;
    VirtualProtect(place, sizeof *place, protection, &protection);
    return before;
}

static ID3D12Device *create_device(void) {
    /* ID3D12Device5, which older headers lack, and the place of EnumerateMetaCommands among its functions. */
    static const GUID device5 = {0x8b4f173b, 0x2fea, 0x4b80, {0x8f, 0x58, 0x43, 0x07, 0x19, 0x1a, 0xb9, 0x5d}};
    enum { ENUMERATE_META_COMMANDS = 59 };
    HMODULE library = LoadLibraryA("d3d12.dll");
    PFN_D3D12_CREATE_DEVICE create = library ? (PFN_D3D12_CREATE_DEVICE)(void *)GetProcAddress(library, "D3D12CreateDevice") : NULL;
    ID3D12Device *device = NULL;
    void *newer = NULL;
    if (!create || FAILED(create(NULL, D3D_FEATURE_LEVEL_11_0, &IID_ID3D12Device, (void **)&device)))
        return NULL;
    if (SUCCEEDED(ID3D12Device_QueryInterface(device, &device5, &newer)) && newer)
        replace(&(*(void ***)newer)[ENUMERATE_META_COMMANDS], no_meta_commands);
    check_feature = (void *)replace((void **)&device->lpVtbl->CheckFeatureSupport, check_feature_as_gpu);
    return device;
}

/* One device for all sessions: to make one takes several times as long as to build a small session. It is made as onnxruntime
   makes its own (DirectML.h: DMLCreateDevice1, feature level 5.0, no flags). */
static void *create_directml(HMODULE library, ID3D12Device *device) {
    static const GUID dml_device = {0x6dbd6437, 0x96fd, 0x423f, {0xa9, 0x8c, 0xae, 0x5e, 0x7c, 0x2a, 0x57, 0x3f}};
    enum { NO_FLAGS = 0, FEATURE_LEVEL_5_0 = 0x5000 };
    HRESULT(WINAPI * create)(ID3D12Device *, int, int, REFIID, void **) = (void *)GetProcAddress(library, "DMLCreateDevice1");
    void *made = NULL;
    return create && SUCCEEDED(create(device, NO_FLAGS, FEATURE_LEVEL_5_0, &dml_device, &made)) ? made : NULL;
}

static ID3D12CommandQueue *create_queue(ID3D12Device *device) {
    D3D12_COMMAND_QUEUE_DESC wanted = {.Type = D3D12_COMMAND_LIST_TYPE_COMPUTE, .Flags = D3D12_COMMAND_QUEUE_FLAG_DISABLE_GPU_TIMEOUT};
    void *made = NULL;
    return SUCCEEDED(ID3D12Device_CreateCommandQueue(device, &wanted, &IID_ID3D12CommandQueue, &made)) ? made : NULL;
}

/* -- Text ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    char *bytes;
    size_t length, capacity;
} Text;

static void put(Text *text, const char *bytes, size_t length) {
    if (text->length + length > text->capacity) {
        text->capacity = 2 * (text->length + length) + 4096;
        text->bytes = realloc(text->bytes, text->capacity);
        if (!text->bytes)
            abort();
    }
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
}

static void put_text(Text *text, const char *value) {
    put(text, value, strlen(value));
}

static void put_json(Text *text, const char *value) {
    char escaped[8];
    put_text(text, "\"");
    for (; *value; value++) {
        unsigned char c = (unsigned char)*value;
        if (c < 0x20 || c == '"' || c == '\\')
            put(text, escaped, (size_t)sprintf(escaped, "\\u%04x", c));
        else
            put(text, value, 1);
    }
    put_text(text, "\"");
}

/* -- Asking ----------------------------------------------------------------------------------------------------------- */

static FILE *output;
static void *directml;
static ID3D12CommandQueue *queue;

static void write_line(Text *line) {
    put_text(line, "\n");
    fwrite(line->bytes, 1, line->length, output);
    fflush(output);
    free(line->bytes);
}

static void tell_placement(void *context, int severity, const char *category, const char *id, const char *where, const char *message) {
    Text line = {0};
    (void)context, (void)severity, (void)category, (void)id;
    if (!strstr(where, "VerifyEachNodeIsAssignedToAnEp"))
        return;
    put_json(&line, message);
    write_line(&line);
}

static wchar_t *wide(const char *text) {
    int length = MultiByteToWideChar(CP_UTF8, 0, text, -1, NULL, 0);
    wchar_t *result = calloc((size_t)length + 1, sizeof *result);
    if (result)
        MultiByteToWideChar(CP_UTF8, 0, text, -1, result, length);
    return result;
}

static void *read_file(const char *path, size_t *size) {
    wchar_t *name = wide(path);
    FILE *stream = name ? _wfopen(name, L"rb") : NULL;
    void *content = NULL;
    free(name);
    if (!stream)
        return NULL;
    _fseeki64(stream, 0, SEEK_END);
    *size = (size_t)_ftelli64(stream);
    _fseeki64(stream, 0, SEEK_SET);
    content = malloc(*size + 1);
    if (content && fread(content, 1, *size, stream) != *size) {
        free(content);
        content = NULL;
    }
    fclose(stream);
    return content;
}

/* The session's options, as Microsoft's documentation of the EP wants them. Nodes that DirectML would compute together are
   left apart, so that each is named. */
static Status *fill(SessionOptions *options, bool optimize, const char *folder) {
    Status *failed = NULL;
    if (!failed) failed = disable_memory_pattern(options);
    if (!failed) failed = set_execution_mode(options, SEQUENTIAL);
    if (!failed) failed = set_log_severity(options, VERBOSE);
    if (!failed) failed = set_threads(options, 1);
    if (!failed) failed = set_optimization(options, optimize ? ALL_OPTIMIZATIONS : NO_OPTIMIZATION);
    if (!failed) failed = add_config(options, "ep.dml.disable_graph_fusion", "1");
    if (!failed) failed = add_config(options, "session.model_external_initializers_file_folder_path", folder);
    if (!failed) failed = append_directml(options, directml, queue);
    return failed;
}

static Status *build(Env *env, bool optimize, const void *model, size_t size, const char *folder, bool *built) {
    SessionOptions *options = NULL;
    Session *session = NULL;
    Status *failed = create_options(&options);
    if (!failed) failed = fill(options, optimize, folder);
    if (!failed) failed = create_session(env, model, size, options, &session);
    *built = !failed;
    if (session) release_session(session);
    if (options) release_options(options);
    return failed;
}

static double seconds(void) {
    LARGE_INTEGER frequency, ticks;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&ticks);
    return (double)ticks.QuadPart / (double)frequency.QuadPart;
}

static void answer(Env *env, char *request) {
    char *optimize = request, *path = strchr(optimize, '\t'), *folder = path ? strchr(path + 1, '\t') : NULL, number[64];
    Status *failed = NULL;
    const char *error = "";
    bool built = false;
    void *model = NULL;
    size_t size = 0;
    double started = seconds();
    Text line = {0};
    if (!folder) {
        error = "a request has three fields";
    } else {
        *path++ = *folder++ = 0;
        model = read_file(path, &size);
        if (!model) {
            error = "the model cannot be read";
        } else {
            failed = build(env, optimize[0] == '1', model, size, folder, &built);
            error = failed ? error_message(failed) : "";
        }
    }
    sprintf(number, "{\"session\": %s, \"seconds\": %.4f, \"error\": ", built ? "true" : "false", seconds() - started);
    put_text(&line, number);
    put_json(&line, error);
    put_text(&line, "}");
    write_line(&line);
    if (failed) release_status(failed);
    free(model);
}

/* A line of any length without its end; NULL at the end of the input. */
static char *read_line(Text *line) {
    int c;
    line->length = 0;
    while ((c = getchar()) != EOF && c != '\n')
        put(line, (char[]){(char)c}, 1);
    if (c == EOF)
        return NULL;
    put(line, "", 1);
    return line->bytes;
}

static int fail(const char *what) {
    fprintf(stderr, "%s (error %lu)\n", what, GetLastError());
    return 1;
}

static HMODULE load(const char *folder, const char *name) {
    Text path = {0};
    put_text(&path, folder);
    put_text(&path, "\\");
    put(&path, name, strlen(name) + 1);
    wchar_t *wide_path = wide(path.bytes);
    return wide_path ? LoadLibraryExW(wide_path, NULL, LOAD_WITH_ALTERED_SEARCH_PATH) : NULL;
}

int main(int argc, char **argv) {
    /* The libraries may print: the answers have a stream of their own. */
    Text line = {0}, hello = {0};
    Env *env = NULL;
    char *request;
    output = _fdopen(_dup(1), "wb");
    _dup2(2, 1);
    _setmode(0, _O_BINARY);
    SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX | SEM_NOOPENFILEERRORBOX);
    if (argc != 2 || !output)
        return fail("usage: ask.exe FOLDER");
    ID3D12Device *device = create_device();
    if (!device)
        return fail("Direct3D 12 offers no device: no Vulkan driver, or no display");
    /* In this order: onnxruntime.dll takes the DirectML.dll that is there. */
    HMODULE directml_library = load(argv[1], "DirectML.dll"), library = load(argv[1], "onnxruntime.dll");
    if (!directml_library || !library)
        return fail("onnxruntime.dll or DirectML.dll cannot be loaded");
    directml = create_directml(directml_library, device);
    queue = create_queue(device);
    if (!directml || !queue)
        return fail("DirectML does not take the device");
    const ApiBase *(*base)(void) = (void *)GetProcAddress(library, "OrtGetApiBase");
    append_directml = (void *)GetProcAddress(library, "OrtSessionOptionsAppendExecutionProviderEx_DML");
    api = base ? base()->get_api(API_VERSION) : NULL;
    if (!api || !append_directml)
        return fail("onnxruntime.dll is too old, or was built without DirectML");
    if (create_env(tell_placement, NULL, VERBOSE, "ask", &env))
        return fail("onnxruntime does not start");
    put_text(&hello, "{\"onnxruntime\": ");
    put_json(&hello, base()->version());
    put_text(&hello, "}");
    write_line(&hello);
    while ((request = read_line(&line)))
        answer(env, request);
    /* Not through the libraries' own ends, which may hang. */
    TerminateProcess(GetCurrentProcess(), 0);
    return 0;
}
