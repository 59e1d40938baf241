// What Argo CD and Flux make of an object, by their own code, so that tests need neither of them running.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

const usage = `usage:
  gitops-rules lua FOLDER       run FOLDER/health_test.yaml and FOLDER/actions/action_test.yaml as Argo CD does
  gitops-rules apply [--server-side]      apply the manifests on standard input as Argo CD does
  gitops-rules diff [--server-side]       compare these with what is live, as Argo CD does
  gitops-rules flux             evaluate {"expressions": healthCheckExprs, "objects": […]} as Flux does
  gitops-rules kstatus          the same for Flux without expressions: {"objects": […]}

apply and diff read a JSON list of manifests; $KUBECONFIG says of which cluster. Results are JSON.`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gitops-rules:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 2 && arguments[0] == "lua":
		return runLuaTests(arguments[1])
	case len(arguments) == 1 && (arguments[0] == "flux" || arguments[0] == "kstatus"):
		return runFlux(arguments[0] == "flux")
	case len(arguments) > 0 && (arguments[0] == "apply" || arguments[0] == "diff"):
		serverSide := len(arguments) == 2 && arguments[1] == "--server-side"
		if len(arguments) > 1 && !serverSide {
			break
		}
		if arguments[0] == "apply" {
			return runApply(serverSide)
		}
		return runDiff(serverSide)
	}
	return errors.New(usage)
}

func readInput(into any) error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func printResult(result any) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(result)
}
