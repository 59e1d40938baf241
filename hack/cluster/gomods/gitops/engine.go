package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/diff"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/kube"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/tracing"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// manager is Argo CD's field manager (common.ArgoCDSSAManager).
const manager = "argocd-controller"

// difference is what Argo CD would show of one object: OutOfSync where modified.
type difference struct {
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Modified bool   `json:"modified"`
	Live     any    `json:"live"`
	Wanted   any    `json:"wanted"`
}

type engine struct {
	config  *rest.Config
	kubectl *kube.KubectlCmd
	objects []*unstructured.Unstructured
}

func newEngine() (*engine, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	if err := readInput(&objects); err != nil {
		return nil, err
	}
	kubectl := &kube.KubectlCmd{Log: logr.Discard(), Tracer: tracing.NopTracer{}}
	return &engine{config: config, kubectl: kubectl, objects: objects}, nil
}

// runApply does what a sync does with each object (sync_context.go, applyObject).
func runApply(serverSide bool) error {
	engine, err := newEngine()
	if err != nil {
		return err
	}
	operations, done, err := engine.kubectl.ManageResources(engine.config)
	if err != nil {
		return err
	}
	defer done()
	messages := []string{}
	for _, object := range engine.objects {
		message, err := operations.ApplyResource(
			context.Background(), object, cmdutil.DryRunNone, false, true, serverSide, manager)
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		messages = append(messages, message)
	}
	return printResult(messages)
}

// runDiff compares as Argo CD does by default (three ways, by the annotation of the last apply), or as it does with
// ServerSideDiff=true, there with what admission webhooks change counted as well (IncludeMutationWebhook=true).
func runDiff(serverSide bool) error {
	engine, err := newEngine()
	if err != nil {
		return err
	}
	applier, done, err := engine.kubectl.ManageServerSideDiffDryRuns(engine.config)
	if err != nil {
		return err
	}
	defer done()
	_, parser, err := engine.kubectl.LoadOpenAPISchema(engine.config)
	if err != nil {
		return err
	}
	found := []difference{}
	for _, object := range engine.objects {
		live, err := engine.kubectl.GetResource(
			context.Background(), engine.config, object.GroupVersionKind(), object.GetName(), object.GetNamespace())
		if err != nil {
			return err
		}
		result, err := diff.Diff(object, live,
			diff.WithLogr(logr.Discard()),
			diff.WithManager(manager),
			diff.WithGVKParser(parser),
			diff.WithServerSideDiff(serverSide),
			diff.WithServerSideDryRunner(diff.NewK8sServerSideDryRunner(applier)),
			diff.WithIgnoreMutationWebhook(false),
		)
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		found = append(found, difference{
			Kind:     object.GetKind(),
			Name:     object.GetName(),
			Modified: result.Modified,
			Live:     json.RawMessage(result.NormalizedLive),
			Wanted:   json.RawMessage(result.PredictedLive),
		})
	}
	return printResult(found)
}
