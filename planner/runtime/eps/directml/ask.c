/* Asks the DirectML EP of ONNX Runtime which nodes of a model it takes, and runs it. A Windows program; on Linux it runs under Wine.

       ask.exe FOLDER

   FOLDER holds onnxruntime.dll and DirectML.dll. The program first says {"onnxruntime": VERSION}. Then it reads a request a line from
   standard input, fields separated by tabs:

       ask OPTIMIZE MODEL FOLDER    OPTIMIZE: 0 or 1, whether onnxruntime may rewrite the graph
                                    MODEL: an ONNX file
                                    FOLDER: where the model's external data lies
       open OPTIMIZE MODEL FOLDER   the same, and the session is kept for `run`, in place of the one before
       run INPUTS OUTPUTS           INPUTS: a file of tensors; the outputs are written to OUTPUTS

   and answers each with lines of JSON. A string is what onnxruntime's verbose log says of the placement. It is written as
   it is logged, before any kernel is built, so it is there even when the session fails or crashes afterwards. An object ends
   the answer: {"done": BOOL, "seconds": NUMBER, "error": TEXT, "lost": BOOL}. The program ends with its input. Where a session crashes,
   the program dies with it; where the device is lost, as a driver may lose it over one model, it is of no use for the next:
   whoever asks starts another.

   A file of tensors has a record for each, every part of which begins at a multiple of 64 bytes: the fields of `Head`, the dimensions
   (64 bits each) and the name without an end; then the data. All numbers are little-endian. */

#define COBJMACROS
#define INITGUID
#include <windows.h>
#include <d3d12.h>
#include <dxgi.h>
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
typedef struct Value Value;
typedef struct Shape Shape;
typedef struct MemoryInfo MemoryInfo;
typedef struct Allocator Allocator;
typedef void (*Api[API_VERSION * 16])(void);
typedef struct {
    const Api *(*get_api)(uint32_t version);
    const char *(*version)(void);
} ApiBase;
typedef void (*Logger)(void *context, int severity, const char *category, const char *id, const char *where, const char *message);

enum { VERBOSE = 0, SEQUENTIAL = 0, NO_OPTIMIZATION = 0, ALL_OPTIMIZATIONS = 99, ARENA = 1, DEFAULT_MEMORY = 0 };

static const Api *api;

#define CALL(slot, result, ...) ((result(*)(__VA_ARGS__))(*api)[slot])
#define error_message CALL(2, const char *, const Status *)
#define create_env CALL(4, Status *, Logger, void *, int, const char *, Env **)
#define create_session CALL(8, Status *, Env *, const void *, size_t, const SessionOptions *, Session **)
#define run_session CALL(9, Status *, Session *, const void *, const char *const *, const Value *const *, size_t, const char *const *, size_t, Value **)
#define create_options CALL(10, Status *, SessionOptions **)
#define set_execution_mode CALL(13, Status *, SessionOptions *, int)
#define disable_memory_pattern CALL(17, Status *, SessionOptions *)
#define set_log_severity CALL(22, Status *, SessionOptions *, int)
#define set_optimization CALL(23, Status *, SessionOptions *, int)
#define set_threads CALL(24, Status *, SessionOptions *, int)
#define output_count CALL(31, Status *, const Session *, size_t *)
#define output_name CALL(37, Status *, const Session *, size_t, Allocator *, char **)
#define tensor_of CALL(49, Status *, const MemoryInfo *, void *, size_t, const int64_t *, size_t, int, Value **)
#define is_tensor CALL(50, Status *, const Value *, int *)
#define data_of CALL(51, Status *, Value *, void **)
#define type_of CALL(60, Status *, const Shape *, int *)
#define rank_of CALL(61, Status *, const Shape *, size_t *)
#define dimensions_of CALL(62, Status *, const Shape *, int64_t *, size_t)
#define shape_of CALL(65, Status *, const Value *, Shape **)
#define cpu_memory CALL(69, Status *, int, int, MemoryInfo **)
#define allocator_free CALL(76, Status *, Allocator *, void *)
#define default_allocator CALL(78, Status *, Allocator **)
#define release_status CALL(93, void, Status *)
#define release_session CALL(95, void, Session *)
#define release_value CALL(96, void, Value *)
#define release_shape CALL(99, void, Shape *)
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

/* The first adapter, by which DirectML finds out what the device is. NULL where there is none: Direct3D then takes its own. */
static IUnknown *first_adapter(void) {
    HMODULE library = LoadLibraryA("dxgi.dll");
    HRESULT(WINAPI * create)(REFIID, void **) = library ? (void *)GetProcAddress(library, "CreateDXGIFactory1") : NULL;
    IDXGIFactory1 *factory = NULL;
    IDXGIAdapter1 *adapter = NULL;
    if (create && SUCCEEDED(create(&IID_IDXGIFactory1, (void **)&factory)))
        IDXGIFactory1_EnumAdapters1(factory, 0, &adapter);
    return (IUnknown *)adapter;
}

static ID3D12Device *create_device(void) {
    /* ID3D12Device5, which older headers lack, and the place of EnumerateMetaCommands among its functions. */
    static const GUID device5 = {0x8b4f173b, 0x2fea, 0x4b80, {0x8f, 0x58, 0x43, 0x07, 0x19, 0x1a, 0xb9, 0x5d}};
    enum { ENUMERATE_META_COMMANDS = 59 };
    HMODULE bridge = LoadLibraryA("plannerd3d12.dll"), library = bridge ? bridge : LoadLibraryA("d3d12.dll"); /* bridge.c */
    PFN_D3D12_CREATE_DEVICE create = library ? (PFN_D3D12_CREATE_DEVICE)(void *)GetProcAddress(library, "D3D12CreateDevice") : NULL;
    ID3D12Device *device = NULL;
    void *newer = NULL;
    if (!create || FAILED(create(first_adapter(), D3D_FEATURE_LEVEL_11_0, &IID_ID3D12Device, (void **)&device)))
        return NULL;
    if (SUCCEEDED(ID3D12Device_QueryInterface(device, &device5, &newer)) && newer)
        replace(&(*(void ***)newer)[ENUMERATE_META_COMMANDS], no_meta_commands);
    check_feature = (void *)replace((void **)&device->lpVtbl->CheckFeatureSupport, check_feature_as_gpu);
    return device;
}

static ID3D12Device *device;

/* One device for all sessions: to make one takes several times as long as to build a small session. It is made as onnxruntime
   makes its own (DirectML.h: DMLCreateDevice1, feature level 5.0, no flags). */
static void *create_directml(HMODULE library) {
    static const GUID dml_device = {0x6dbd6437, 0x96fd, 0x423f, {0xa9, 0x8c, 0xae, 0x5e, 0x7c, 0x2a, 0x57, 0x3f}};
    enum { NO_FLAGS = 0, FEATURE_LEVEL_5_0 = 0x5000 };
    HRESULT(WINAPI * create)(ID3D12Device *, int, int, REFIID, void **) = (void *)GetProcAddress(library, "DMLCreateDevice1");
    void *made = NULL;
    return create && SUCCEEDED(create(device, NO_FLAGS, FEATURE_LEVEL_5_0, &dml_device, &made)) ? made : NULL;
}

/* Whether the driver gave up: DirectML may have noticed before Direct3D says so. */
static bool is_lost(void *dml) {
    enum { GET_DEVICE_REMOVED_REASON = 15 }; /* its place among the functions of IDMLDevice (DirectML.h) */
    HRESULT(WINAPI * reason)(void *) = (*(void ***)dml)[GET_DEVICE_REMOVED_REASON];
    return FAILED(reason(dml)) || FAILED(ID3D12Device_GetDeviceRemovedReason(device));
}

static ID3D12CommandQueue *create_queue(void) {
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
    content = _aligned_malloc(*size + 1, 64); /* as onnxruntime wants a tensor's data to lie */
    if (content && fread(content, 1, *size, stream) != *size) {
        _aligned_free(content);
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

static Session *kept;

static Status *build(Env *env, bool optimize, const void *model, size_t size, const char *folder, bool keep) {
    SessionOptions *options = NULL;
    Session *session = NULL;
    Status *failed = create_options(&options);
    if (!failed) failed = fill(options, optimize, folder);
    if (!failed) failed = create_session(env, model, size, options, &session);
    if (session && keep)
        kept = session;
    else if (session)
        release_session(session);
    if (options) release_options(options);
    return failed;
}

/* -- Running ---------------------------------------------------------------------------------------------------------- */

enum { MOST_TENSORS = 256, MOST_DIMENSIONS = 32, BOUNDARY = 64 };

typedef struct {
    uint64_t bytes;
    uint32_t type, rank, name_length, unused;
} Head;

static size_t padded(size_t size) {
    return (size + BOUNDARY - 1) / BOUNDARY * BOUNDARY;
}

/* Bytes of an element, by onnxruntime's number of its type; 0 for a type that has no fixed size or is not known here. */
static size_t element_size(int type) {
    static const size_t sizes[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8, 8, 16, 2};
    return type >= 0 && type < (int)(sizeof sizes / sizeof *sizes) ? sizes[type] : 0;
}

typedef struct {
    size_t count;
    char *names[MOST_TENSORS];
    Value *values[MOST_TENSORS];
} Tensors;

static void release_tensors(Tensors *tensors) {
    for (size_t i = 0; i < tensors->count; i++) {
        free(tensors->names[i]);
        if (tensors->values[i]) release_value(tensors->values[i]);
    }
}

/* The tensors of a file as values that lie in its bytes. */
static const char *parse_tensors(char *bytes, size_t size, Tensors *found, Status **failed) {
    static MemoryInfo *memory;
    *failed = memory ? NULL : cpu_memory(ARENA, DEFAULT_MEMORY, &memory);
    for (size_t at = 0; !*failed && at < size;) {
        Head head;
        if (size - at < sizeof head || found->count == MOST_TENSORS)
            return "the inputs are cut short, or too many";
        memcpy(&head, bytes + at, sizeof head);
        size_t first = sizeof head + 8 * (size_t)head.rank + head.name_length;
        if (head.rank > MOST_DIMENSIONS || padded(first) > size - at || head.bytes > size - at - padded(first))
            return "the inputs are cut short";
        char *name = calloc((size_t)head.name_length + 1, 1);
        if (!name)
            return "no memory";
        memcpy(name, bytes + at + sizeof head + 8 * (size_t)head.rank, head.name_length);
        found->names[found->count] = name;
        *failed = tensor_of(memory, bytes + at + padded(first), head.bytes, (int64_t *)(void *)(bytes + at + sizeof head), head.rank, (int)head.type, &found->values[found->count]);
        found->count++;
        at += padded(first) + padded(head.bytes);
    }
    return "";
}

static Status *write_tensor(FILE *stream, const char *name, Value *value, const char **error) {
    static const char zeros[BOUNDARY];
    Head head = {.name_length = (uint32_t)strlen(name)};
    int64_t dimensions[MOST_DIMENSIONS];
    Shape *shape = NULL;
    void *data = NULL;
    size_t rank = 0, count = 1;
    int type = 0, tensor = 0;
    Status *failed = is_tensor(value, &tensor);
    if (!failed && !tensor) {
        *error = "an output is no tensor";
        return NULL;
    }
    if (!failed) failed = shape_of(value, &shape);
    if (!failed) failed = type_of(shape, &type);
    if (!failed) failed = rank_of(shape, &rank);
    if (!failed && rank > MOST_DIMENSIONS)
        *error = "an output has too many dimensions";
    else if (!failed)
        failed = dimensions_of(shape, dimensions, rank);
    if (shape) release_shape(shape);
    if (failed || **error) return failed;
    for (size_t i = 0; i < rank; i++)
        count *= (size_t)dimensions[i];
    if (!element_size(type)) {
        *error = "an output is of a type that is not handed on";
        return NULL;
    }
    failed = data_of(value, &data);
    if (failed) return failed;
    head.bytes = count * element_size(type), head.type = (uint32_t)type, head.rank = (uint32_t)rank;
    size_t first = sizeof head + 8 * rank + head.name_length;
    fwrite(&head, sizeof head, 1, stream);
    fwrite(dimensions, 8, rank, stream);
    fwrite(name, 1, head.name_length, stream);
    fwrite(zeros, 1, padded(first) - first, stream);
    fwrite(data, 1, head.bytes, stream);
    fwrite(zeros, 1, padded(head.bytes) - head.bytes, stream);
    return NULL;
}

static Status *run(const Tensors *inputs, FILE *stream, const char **error) {
    Tensors outputs = {0};
    Allocator *allocator = NULL;
    size_t count = 0;
    Status *failed = default_allocator(&allocator);
    if (!failed) failed = output_count(kept, &count);
    if (!failed && count > MOST_TENSORS) {
        *error = "too many outputs";
        return NULL;
    }
    for (size_t i = 0; !failed && i < count; i++) {
        char *name = NULL;
        failed = output_name(kept, i, allocator, &name);
        if (!failed) {
            outputs.names[outputs.count++] = _strdup(name);
            failed = allocator_free(allocator, name);
        }
    }
    if (!failed)
        failed = run_session(kept, NULL, (const char *const *)inputs->names, (const Value *const *)inputs->values, inputs->count, (const char *const *)outputs.names, count, outputs.values);
    for (size_t i = 0; !failed && !**error && i < count; i++)
        failed = write_tensor(stream, outputs.names[i], outputs.values[i], error);
    release_tensors(&outputs);
    return failed;
}

/* -- Answers ---------------------------------------------------------------------------------------------------------- */

static double seconds(void) {
    LARGE_INTEGER frequency, ticks;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&ticks);
    return (double)ticks.QuadPart / (double)frequency.QuadPart;
}

static Status *answer_session(Env *env, char *fields[], bool keep, const char **error) {
    size_t size = 0;
    void *model = read_file(fields[2], &size);
    Status *failed = NULL;
    if (kept) release_session(kept);
    kept = NULL;
    if (!model)
        *error = "the model cannot be read";
    else
        failed = build(env, fields[1][0] == '1', model, size, fields[3], keep);
    _aligned_free(model);
    return failed;
}

static Status *answer_run(char *fields[], const char **error) {
    size_t size = 0;
    void *bytes = kept ? read_file(fields[1], &size) : NULL;
    wchar_t *name = wide(fields[2]);
    FILE *stream = bytes && name ? _wfopen(name, L"wb") : NULL;
    Tensors inputs = {0};
    Status *failed = NULL;
    *error = !kept ? "no session is open" : !bytes ? "the inputs cannot be read" : !stream ? "the outputs cannot be written" : "";
    if (!**error) *error = parse_tensors(bytes, size, &inputs, &failed);
    if (!**error && !failed) failed = run(&inputs, stream, error);
    release_tensors(&inputs);
    if (stream && fclose(stream) && !failed && !**error)
        *error = "the outputs cannot be written";
    free(name);
    _aligned_free(bytes);
    return failed;
}

static void answer(Env *env, char *request) {
    char *fields[4] = {request}, number[64];
    size_t count = 1;
    Status *failed = NULL;
    const char *error = "";
    double started = seconds();
    Text line = {0};
    for (char *tab = request; count < 4 && (tab = strchr(tab, '\t'));) {
        *tab++ = 0;
        fields[count++] = tab;
    }
    if (count == 4 && (!strcmp(fields[0], "ask") || !strcmp(fields[0], "open")))
        failed = answer_session(env, fields, fields[0][0] == 'o', &error);
    else if (count == 3 && !strcmp(fields[0], "run"))
        failed = answer_run(fields, &error);
    else
        error = "no such request";
    if (failed) error = error_message(failed);
    sprintf(number, "{\"done\": %s, \"seconds\": %.4f, \"error\": ", *error ? "false" : "true", seconds() - started);
    put_text(&line, number);
    put_json(&line, error);
    put_text(&line, is_lost(directml) ? ", \"lost\": true}" : ", \"lost\": false}");
    write_line(&line);
    if (failed) release_status(failed);
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
    device = create_device();
    if (!device)
        return fail("Direct3D 12 offers no device: no Vulkan driver, or no display");
    /* In this order: onnxruntime.dll takes the DirectML.dll that is there. */
    HMODULE directml_library = load(argv[1], "DirectML.dll"), library = load(argv[1], "onnxruntime.dll");
    if (!directml_library || !library)
        return fail("onnxruntime.dll or DirectML.dll cannot be loaded");
    directml = create_directml(directml_library);
    queue = create_queue();
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
