// list_tensors: which tensors llama.cpp expects of a model, from its metadata alone.
//
// usage: list_tensors METADATA.gguf      (a GGUF without tensors)
// output: one line per tensor: NAME<TAB>ne0,ne1,...
//
// The model is made by llama_model_init_from_user(), which needs no tensor data: every tensor that the
// architecture's loader asks for is made in the shape it asks for, optional ones included.
#include "gguf.h"
#include "ggml-backend.h"
#include "llama.h"
#include "llama-ext.h"
#include <cstdio>
#include <cstdlib>

#include <string>
#include <utility>
#include <vector>
// of src/llama-model.h, exported
const std::vector<std::pair<std::string, ggml_tensor *>> & llama_internal_get_tensor_map(const llama_model * model);

static void no_data(ggml_tensor *, void *) {}
static void log_errors(ggml_log_level level, const char * text, void *) {
    if (level >= GGML_LOG_LEVEL_ERROR && level != GGML_LOG_LEVEL_CONT) fputs(text, stderr);
}

int main(int argc, char ** argv) {
    if (argc != 2) return 2;
    llama_log_set(log_errors, nullptr);
    gguf_init_params init = {/*no_alloc=*/true, /*ctx=*/nullptr};
    gguf_context * gguf = gguf_init_from_file(argv[1], init);
    if (!gguf) return 1;
    ggml_backend_dev_t devices[] = {nullptr};
    llama_model_params params = llama_model_default_params();
    params.devices = devices;
    params.n_gpu_layers = 0;
    params.no_alloc = true;
    params.load_mode = LLAMA_LOAD_MODE_NONE;
    params.use_extra_bufts = false;
    llama_model * model = llama_model_init_from_user(gguf, no_data, nullptr, params);
    if (!model) return 1;
    for (const auto & [name, tensor] : llama_internal_get_tensor_map(model)) {
        int last = GGML_MAX_DIMS - 1;
        while (last > 0 && tensor->ne[last] == 1) last--;
        printf("%s\t", name.c_str());
        for (int i = 0; i <= last; i++) printf("%s%lld", i ? "," : "", (long long) tensor->ne[i]);
        printf("\n");
    }
    fflush(stdout);
    _Exit(0);
}
