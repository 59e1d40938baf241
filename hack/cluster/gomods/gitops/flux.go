package main

import (
	"context"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type fluxInput struct {
	Expressions kustomize.HealthCheckExpressions `json:"expressions"`
	Objects     []*unstructured.Unstructured     `json:"objects"`
}

// runFlux prints one status for each object: InProgress, Failed, Current, Terminating, Unknown.
func runFlux(byExpressions bool) error {
	var input fluxInput
	if err := readInput(&input); err != nil {
		return err
	}
	compute := status.Compute
	if byExpressions {
		evaluator, err := cel.NewStatusEvaluator(&input.Expressions)
		if err != nil {
			return err
		}
		compute = func(object *unstructured.Unstructured) (*status.Result, error) {
			return evaluator.Evaluate(context.Background(), object)
		}
	}
	found := []string{}
	for _, object := range input.Objects {
		result, err := compute(object)
		if err != nil {
			// As cli-utils' status readers do, which Flux asks again until the timeout.
			result = &status.Result{Status: status.UnknownStatus}
		}
		found = append(found, string(result.Status))
	}
	return printResult(found)
}
