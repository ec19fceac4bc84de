/* Runs a target on the files named, each once: how inputs are replayed where there is no libFuzzer. */
#include <fstream>
#include <iterator>
#include <string>

#include "fuzz.h"

int main(int count, char **names) {
    for (int i = 1; i < count; i++) {
        std::ifstream file(names[i], std::ios::binary);
        std::string input{std::istreambuf_iterator<char>(file), {}};
        if (!file) {
            std::fprintf(stderr, "%s cannot be read\n", names[i]);
            return 1;
        }
        std::fprintf(stderr, "%s\n", names[i]);
        LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t *>(input.data()), input.size());
    }
    std::fprintf(stderr, "%d inputs ran\n", count - 1);
    return 0;
}
